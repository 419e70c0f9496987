"""Live options of a running SGLang engine: a plugin of the group ``sglang.srt.plugins``.

SGLang calls ``register`` in each of its processes; only the one that runs a scheduler is affected,
and only where LLMTOP_LIVE_SOCKET is set. One test is added at the head of
``Scheduler.process_input_requests``, which every one of SGLang's loops calls between two batches:
the only moment at which these values may change.

What can be changed is found by looking at the scheduler, never by the version. Written against the
schedulers of SGLang 0.5.12 to 0.5.23; docs/sglang.md says which of them ran.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from llmtop_live.door import Door

from llmtop_sglang.reins import Reins

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"
MODULE = "sglang.srt.managers.scheduler"
UNSEEN = object()

log = logging.getLogger("sglang.llmtop")


def register() -> None:
    """The entry point. A failure in here leaves a stock SGLang behind."""
    # Where that module is not loaded, no scheduler will run: the detokenizer need not import it.
    if not os.environ.get(SOCKET_VARIABLE) or MODULE not in sys.modules:
        return
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        HookRegistry.register(
            f"{MODULE}.Scheduler.process_input_requests", between_batches, HookType.BEFORE
        )
        HookRegistry.register(f"{MODULE}.Scheduler.set_internal_state", asked, HookType.AROUND)
        HookRegistry.register(f"{MODULE}.Scheduler.get_internal_state", told, HookType.AFTER)
    except Exception:
        log.exception("llmtop: no live options: this SGLang is laid out differently")


def between_batches(scheduler: Any, *_: Any, **__: Any) -> None:
    """Before ``process_input_requests``. All that is done while nothing is changed."""
    reins = getattr(scheduler, "llmtop_reins", UNSEEN)
    if reins is UNSEEN:
        reins = attach(scheduler)
    if reins is not None and reins.desk.attention:
        reins.step()


def asked(original: Any, scheduler: Any, request: Any, *rest: Any, **more: Any) -> Any:
    """Around ``set_internal_state``, which SGLang hands to all ranks in the same round.

    Where there are several ranks it is the way for our values too. Else somebody may have used it
    to set what we show.
    """
    reins = getattr(scheduler, "llmtop_reins", None)
    if reins is None:
        return original(scheduler, request, *rest, **more)
    answer = original(scheduler, reins.take_on_every_rank(request) or request, *rest, **more)
    reins.overheard(request, answer)
    return answer


def told(answer: Any, scheduler: Any, *_: Any, **__: Any) -> None:
    """After ``get_internal_state``: it would tell the launch values of what it cannot change."""
    reins = getattr(scheduler, "llmtop_reins", None)
    if reins is not None:
        reins.tell(answer)


def attach(scheduler: Any) -> Reins | None:
    """Take the reins of a scheduler and open the socket. On failure None: a stock engine."""
    try:
        scheduler.llmtop_reins = None  # first: what fails once is not tried in each round
        from sglang.version import __version__

        reins = Reins(scheduler, str(__version__), log)
        if not any(_parallel(scheduler, rank) for rank in ("tp_rank", "pp_rank", "dp_rank")):
            Door(os.environ[SOCKET_VARIABLE], reins.desk, log).open()
        scheduler.llmtop_reins = reins
        return reins
    except Exception:
        log.exception("llmtop: no live options on this scheduler")
        return None


def _parallel(scheduler: Any, name: str) -> int:
    """This process's place among the ranks; where that is kept has moved twice since 0.5.12."""
    holders = [scheduler, getattr(scheduler, "ps", None)]
    try:
        from sglang.srt.runtime_context import get_parallel

        holders.append(get_parallel())
    except Exception:
        log.debug("llmtop: no runtime context", exc_info=True)
    found = (getattr(holder, name, None) for holder in holders)
    return next((value for value in found if isinstance(value, int)), 0)
