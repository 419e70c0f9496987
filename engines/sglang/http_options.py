"""SGLang's own live options over HTTP, for engines without llmtop's plugin.

``POST /set_internal_state`` changes a few options while the engine runs, on all of its ranks; ``GET
/server_info`` reports the values in force. It works for every SGLang at a URL, with an API key if
the engine requires one. Source: SGLang 0.5.12 to 0.5.23, entrypoints/http_server.py and
managers/scheduler.py, from 0.5.22 scheduler_components/internal_state.py.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from llmtop.engines.core.live_protocol import LiveError, LiveState, understood
from llmtop.engines.core.options import Change, Outcome, RankChange
from llmtop.engines.sglang.server_info import CAP, CAP_KEY, OTHERS, ServerInfo
from llmtop.engines.tuning.rank_merge import merged_outcome, reason_words
from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import BrokenAnswer, NoConnection, TooLarge
from llmtop.trust import SYSTEM, Trust
from llmtop.values import replace

TIMEOUT_S = 5.0  # an answer waits for the end of a batch, and a long prefill takes seconds
ANSWER_LIMIT = 4 * 1024 * 1024  # bytes; 14 KB for each data-parallel rank in 0.5.23
HISTORY = 50


class Exchange(Protocol):
    """Sends HTTP requests. Raises LiveError if there is no answer."""

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """The status and the body of the answer."""

    async def close(self) -> None:
        """Close the connections."""


class StockLive:
    """The options of one SGLang engine, with LiveClient's interface. Every failure is a LiveError.

    Only this object keeps the history of changes and their authors; the engine keeps none.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        trust: Trust = SYSTEM,
        *,
        exchange: Exchange | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exchange = exchange if exchange is not None else HttpExchange(url, api_key, trust)
        self._clock = clock
        self._now = now
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._accepted: set[str] = set()  # options of OTHERS that this engine has changed

    async def get(self) -> LiveState:
        """The options that the engine can change, with the values in force."""
        info = await self._info()
        return understood(self._state, info)

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Request changes one after the other; one ``Change`` for each, in the order given.

        wait_s is unused here: SGLang answers when its scheduler has applied the value.
        """
        if not changes:
            return ()
        before = understood(ServerInfo, await self._info())
        found = []
        for name, to in changes.items():
            asked, sent = self._now(), self._clock()
            made = await self._one(before, name, to, evict)
            took_ms = (self._clock() - sent) * 1e3
            change = replace(made, ack_ms=took_ms, by=by, time=asked)
            found.append(change)
            if change.outcome is not Outcome.REFUSED:
                self._history.append(replace(change, ack_ms=None))
        return tuple(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()

    def _state(self, answer: Mapping[str, Any]) -> LiveState:
        info = ServerInfo(answer)
        names = (CAP, *(name for name in OTHERS if name in self._accepted | info.offered))
        options = {name: option for name in names if (option := info.option(name)) is not None}
        return LiveState(
            engine="sglang",
            version=info.version,
            pid=None,
            options=options,
            history=tuple(self._history),
        )

    async def _one(self, before: ServerInfo, name: str, to: int, evict: bool) -> Change:
        was = before.value(name)
        if objection := _objection(before, name, to, evict):
            return Change(name, was, to, Outcome.REFUSED, objection)
        key, value = (CAP_KEY, to // before.stages) if name == CAP else (name, to)
        status, body = await self._exchange(
            "POST", "/set_internal_state", {"server_args": {key: value}}
        )
        _check(status, "/set_internal_state")
        confirmed = understood(_list_of_bool, body)
        # This answer is not reliable: 0.5.12 answers true for keys that it refuses.
        after = understood(ServerInfo, await self._info())
        unknown = name != CAP and name not in before.offered
        ranks = _ranks(before, after, name, to)
        if ranks:
            outcome = merged_outcome([one.outcome for one in ranks])
        else:
            applied = all(confirmed) and after.values(name) == {to}
            outcome = Outcome.APPLIED if applied else Outcome.REFUSED
        if outcome is Outcome.APPLIED:
            if name != CAP:
                self._accepted.add(name)
            return Change(name, was, to, outcome, ranks=ranks)
        if outcome is Outcome.PARTIAL:
            return Change(name, was, to, outcome, _partial_reason(after, ranks), ranks=ranks)
        reason = "SGLang refused it; its log shows the reason"
        if unknown:
            reason = f"SGLang {before.version} cannot change this while it runs"
        return Change(name, was, to, outcome, reason, ranks=ranks)

    async def _info(self) -> Mapping[str, Any]:
        status, body = await self._exchange("GET", "/server_info", None)
        _check(status, "/server_info")
        return understood(_object, body)


class HttpExchange:
    """The ``Exchange`` with the server at ``url``. api_key: never in a message or log."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        trust: Trust = SYSTEM,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if url.startswith("https:"):
            trust.context()  # reports an unusable certificate file before the first request
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = HttpClient(
            ANSWER_LIMIT, timeout_s, api_key=api_key, trust_of=lambda _: trust
        )

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """Send one request and read a bounded answer; without status 200, an empty body."""
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = await self._client.request(method, self._url + path, body=content)
        except TimeoutError:
            raise LiveError(
                f"the engine did not answer {path} within {self._timeout_s:g} s",
                "it may be paused, stuck, or busy with one long prefill",
            ) from None
        except TooLarge:
            raise LiveError(
                f"the answer to {path} is larger than {ANSWER_LIMIT // 2**20} MiB"
            ) from None
        except (NoConnection, BrokenAnswer, ValueError) as error:
            raise LiveError(
                f"the request to {path} of the engine failed ({type(error).__name__})",
                "check whether the engine runs, and whether this is its URL",
            ) from None
        return answer.status, answer.body

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _objection(before: ServerInfo, name: str, to: int, evict: bool) -> str | None:
    """Why a change is refused before it is sent; None if it may be sent."""
    option = before.option(name)
    if name != CAP and name not in OTHERS:
        return f"not a live option of this engine; it has: {CAP}"
    if option is None:
        return f"the engine does not report its {name}"
    if evict:
        return "cannot evict: SGLang can retract all running requests or none"
    if not option.minimum <= to <= option.maximum:
        return f"must lie between {option.minimum} and {option.maximum}"
    if name == CAP and to % before.stages:
        return f"must be a multiple of the {before.stages} pipeline stages"
    return None


def _ranks(before: ServerInfo, after: ServerInfo, name: str, to: int) -> tuple[RankChange, ...]:
    """The outcome on each data-parallel rank, from the values in force afterwards."""
    was = {one.rank: one.value for one in before.by_rank(name)}
    return tuple(
        RankChange(one.rank, was.get(one.rank), Outcome.APPLIED)
        if one.value == to
        else RankChange(one.rank, was.get(one.rank), Outcome.REFUSED, "its log shows the reason")
        for one in after.by_rank(name)
    )


def _partial_reason(after: ServerInfo, ranks: tuple[RankChange, ...]) -> str | None:
    if after.numbered:
        return reason_words(ranks)
    # Without numbers, the order of the answers does not identify the ranks.
    refused = sum(one.outcome is Outcome.REFUSED for one in ranks)
    return f"{refused} of {len(ranks)} ranks refused it; SGLang's log shows which and why"


def _check(status: int, path: str) -> None:
    if status in (401, 403):
        raise LiveError(
            f"the engine requires an API key for {path} (HTTP {status})",
            "put its admin API key in LLMTOP_ADMIN_API_KEY; if it has none, put its API key in "
            "LLMTOP_API_KEY",
        )
    if status != 200:
        raise LiveError(f"the engine answered {path} with HTTP {status}", "see the engine's log")


def _object(body: bytes) -> Mapping[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _list_of_bool(body: bytes) -> list[bool]:
    found = json.loads(body)
    if not isinstance(found, list) or not found or not all(isinstance(x, bool) for x in found):
        raise ValueError("not a list of true and false")
    return found
