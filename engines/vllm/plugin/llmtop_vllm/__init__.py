"""Live options of a running vLLM engine: a plugin of the group ``vllm.general_plugins``.

vLLM calls ``register`` in each of its processes; only those that make a scheduler (the engine core)
or an ``AsyncLLM`` (an API server, see ``front_end``) are affected, and only where
LLMTOP_LIVE_SOCKET is set. The scheduler becomes a subclass of
the very class that vLLM chose, with one test at the head of ``schedule()``. That is between two
steps, the only moment at which these values may change: inside a step vLLM asserts that neither
the token budget nor the number of running requests is above its limit, and a failed assertion
there ends the engine and every stream.

What can be changed is found by looking at the scheduler, never by the version. Written against the
schedulers of vLLM 0.20 to 0.32; docs/reference/vllm.md says which of them ran.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from typing import Any

from llmtop_live.introspection import Introspection
from llmtop_live.socket_server import SocketServer

from llmtop_vllm.queue_counters import QueueCounters, RankCounters
from llmtop_vllm.scheduler_control import SchedulerControl, rank_of

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"
# Processes of vLLM that have no AsyncLLM: what that imports would only slow their start.
WITHOUT_CLIENTS = ("EngineCore", "VllmWorker", "Worker", "DPCoordinator")

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
        log.exception("llmtop: no live options: this vLLM has a different structure")
    if not multiprocessing.current_process().name.startswith(WITHOUT_CLIENTS):
        try:
            from llmtop_vllm import front_end

            front_end.hook(os.environ[SOCKET_VARIABLE], log)
        except Exception:
            log.warning("llmtop: no queue limit and no aborts", exc_info=True)


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
            # All that is added while nothing is changed; docs/reference/vllm.md has what it costs.
            control = self._llmtop
            if control is not None and control.tunables.attention:
                control.step()
            return super().schedule(*args, **kwargs)

    LiveScheduler.__name__ = chosen.__name__
    LiveScheduler.__qualname__ = chosen.__qualname__
    return LiveScheduler


def attach(scheduler: Any) -> SchedulerControl | None:
    """Take control of a new scheduler and open the socket. On failure None: a stock engine."""
    try:
        from vllm.version import __version__

        path, rank = os.environ[SOCKET_VARIABLE], rank_of(scheduler)
        control = SchedulerControl(scheduler, str(__version__), log)
        inside = introspection(scheduler, control, path, rank)
        SocketServer(socket_path(scheduler, path), control.tunables, log, inside).open()
        return control
    except Exception:
        log.exception("llmtop: no live options on this scheduler")
        return None


def introspection(
    scheduler: Any, control: SchedulerControl, path: str, rank: int
) -> Introspection | None:
    """What this scheduler shows of its inside; None where it has another structure."""
    try:
        from llmtop_vllm.engine_introspection import EngineIntrospection

        engine = EngineIntrospection(scheduler, control, log, rank_counters(path, rank), rank)
        engine.install()
        scheduler.llmtop_inside = engine
        return engine.inside
    except Exception:
        log.warning("llmtop: no introspection of this scheduler", exc_info=True)
        return None


def rank_counters(path: str, rank: int) -> RankCounters | None:
    """The queue's numbers for the front ends; None where the file cannot be had."""
    try:
        return QueueCounters(path).open_rank(rank)
    except Exception:
        log.warning("llmtop: no queue limit: its numbers cannot be shared", exc_info=True)
        return None


def socket_path(scheduler: Any, path: str) -> str:
    """Where this scheduler's socket is: one for each data-parallel rank, rank 0 the plain path."""
    rank = rank_of(scheduler)
    return f"{path}.{rank}" if rank else path
