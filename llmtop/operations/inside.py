"""Access to the steps and requests inside an engine, for the command line and the screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.options import Applies
from llmtop.engines.core.requests import Aborted
from llmtop.engines.introspection.engine_inside import MOST_IDS, EngineInside
from llmtop.engines.tuning.live_exchange import TIMEOUT_S

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint

ONLY_OURS = "only for engines started by llmtop"
REFRESH_S = 0.25  # an engine returns the same table for 0.2 s
MOST_QUERIES = 10_000

Sleep = Callable[[float], Awaitable[None]]


def inside_of(endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> EngineInside | None:
    """The client of the engine's live socket; None when the engine has none.

    timeout_s: longest wait for an answer.
    """
    has_plugin = any(one.applies is not Applies.RESTART for one in endpoint.adapter.options)
    if endpoint.live_socket is None or not has_plugin:
        return None
    return EngineInside(endpoint.live_socket, endpoint.live_ranks, timeout_s=timeout_s)


def require_inside(endpoint: Endpoint) -> EngineInside:
    """As ``inside_of``; raises LlmtopError with the reason when the engine has none."""
    found = inside_of(endpoint)
    if found is not None:
        return found
    title = endpoint.adapter.title
    if endpoint.owned:
        raise LlmtopError(f"llmtop cannot see the steps and requests of {title} ({endpoint.name})")
    raise LlmtopError(
        f"steps and requests are shown {ONLY_OURS}, and {endpoint.name} was not",
        f"start it with `llmtop run {endpoint.adapter.kind} MODEL`",
    )


async def abort_all(inside: EngineInside, ids: Sequence[str], by: str, reason: str) -> Aborted:
    """Abort requests by id, any number of them. by: who asks. reason: for the engine's log."""
    wanted = tuple(dict.fromkeys(ids))
    parts = [wanted[at : at + MOST_IDS] for at in range(0, len(wanted), MOST_IDS)]
    return _merged([await inside.abort(part, by, reason) for part in parts])


async def abort_waiting(
    inside: EngineInside, longer_s: float, by: str, reason: str, sleep: Sleep
) -> Aborted:
    """Abort each request that has waited longer than ``longer_s`` for its first admission.

    The engine lists 50 requests at a time, so it is queried until it lists no such request.
    """
    done: list[Aborted] = []
    handled: set[str] = set()
    for _ in range(MOST_QUERIES):
        table = await inside.requests("wait")
        late = [
            row.id
            for row in table.rows
            if row.state == "waiting" and row.waited_s is not None and row.waited_s > longer_s
        ]
        if not late:
            break
        new = [ident for ident in late if ident not in handled]
        if not new:
            if handled.issuperset(late) and done and not done[-1].aborted:
                break  # the rest cannot be aborted
            done.append(Aborted((), (), ()))
            await sleep(REFRESH_S)
            continue
        handled.update(new)
        done.append(await inside.abort(new, by, reason))
    return _merged(done)


def _merged(parts: Sequence[Aborted]) -> Aborted:
    return Aborted(
        tuple(ident for part in parts for ident in part.aborted),
        tuple(ident for part in parts for ident in part.ended_before),
        tuple(one for part in parts for one in part.refused),
    )
