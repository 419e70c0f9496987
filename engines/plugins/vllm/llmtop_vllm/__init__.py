"""Live options of a running vLLM engine: a plugin of the group ``vllm.general_plugins``.

vLLM calls ``register`` in each of its processes; only the one that makes a scheduler, the engine
core, is affected, and only where LLMTOP_LIVE_SOCKET is set. The scheduler becomes a subclass of
the very class that vLLM chose, with one test at the head of ``schedule()``. That is between two
steps, the only moment at which these values may change: inside a step vLLM asserts that neither
the token budget nor the number of running requests is above its limit, and a failed assertion
there ends the engine and every stream.

What can be changed is found by looking at the scheduler, never by the version. Written against the
schedulers of vLLM 0.20 to 0.32; docs/vllm.md says which of them ran.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from llmtop_live.door import Door

from llmtop_vllm.reins import Reins

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"

log = logging.getLogger("vllm.llmtop")  # below "vllm", so that vLLM's own handler prints it


def register() -> None:
    """The entry point. A failure in here leaves a stock vLLM behind."""
    if not os.environ.get(SOCKET_VARIABLE):
        return
    try:
        from vllm.config.scheduler import SchedulerConfig

        choose = SchedulerConfig.get_scheduler_cls
        if getattr(choose, "llmtop", False):
            return

        def get_scheduler_cls(self: Any) -> Any:
            chosen = choose(self)
            try:
                return live_scheduler(chosen)
            except Exception:
                log.exception("llmtop: no live options: %r cannot be extended", chosen)
                return chosen

        get_scheduler_cls.llmtop = True  # type: ignore[attr-defined]
        SchedulerConfig.get_scheduler_cls = get_scheduler_cls
    except Exception:
        log.exception("llmtop: no live options: this vLLM is laid out differently")


def live_scheduler(chosen: Any) -> Any:
    """A subclass of the scheduler class that vLLM chose, or whatever it chose if that is no class.

    A subclass, so that the asynchronous scheduler keeps its own ways, and so that vLLM's
    ``isinstance`` questions get the same answers.
    """
    if not isinstance(chosen, type) or not callable(getattr(chosen, "schedule", None)):
        return chosen

    class LiveScheduler(chosen):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._llmtop = attach(self)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            # All that is added while nothing is changed; docs/vllm.md has what it costs.
            reins = self._llmtop
            if reins is not None and reins.desk.attention:
                reins.step()
            return super().schedule(*args, **kwargs)

    LiveScheduler.__name__ = chosen.__name__
    LiveScheduler.__qualname__ = chosen.__qualname__
    return LiveScheduler


def attach(scheduler: Any) -> Reins | None:
    """Take the reins of a new scheduler and open the socket. On failure None: a stock engine."""
    try:
        from vllm.version import __version__

        reins = Reins(scheduler, str(__version__), log)
        Door(socket_path(scheduler, os.environ[SOCKET_VARIABLE]), reins.desk, log).open()
        return reins
    except Exception:
        log.exception("llmtop: no live options on this scheduler")
        return None


def socket_path(scheduler: Any, path: str) -> str:
    """Where this scheduler's socket is: data-parallel engines have one each, rank 0 the plain path.

    data_parallel_index, because vLLM sets data_parallel_rank to 0 in engines that share nothing.
    """
    parallel = getattr(scheduler.vllm_config, "parallel_config", None)
    index = getattr(parallel, "data_parallel_index", 0)
    return f"{path}.{index}" if isinstance(index, int) and index > 0 else path
