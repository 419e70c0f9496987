"""Live options of a running vLLM engine: a plugin of the group ``vllm.general_plugins``.

vLLM calls ``register`` in each of its processes. It takes effect only if LLMTOP_LIVE_SOCKET is set,
and only in a process that creates a scheduler (the engine core) or an ``AsyncLLM`` (an API server,
see ``api_server``).

The plugin replaces the scheduler class by a subclass of the class that vLLM chose. The subclass
checks one flag at the start of ``schedule()``, between two steps. The values may change only there:
inside a step, vLLM asserts that the token budget and the number of running requests are within
their limits, and a failed assertion ends the engine and every stream.

The plugin inspects the scheduler to find what can change; it never uses the version. It was written
for the schedulers of vLLM 0.20 to 0.32; docs/reference/vllm.md lists those that were tested.
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
# vLLM's processes without an AsyncLLM. To import that class would only delay their start.
WITHOUT_CLIENTS = ("EngineCore", "VllmWorker", "Worker", "DPCoordinator")

log = logging.getLogger("vllm.llmtop")  # below "vllm", so that vLLM's own handler prints it


def register() -> None:
    """The entry point. After a failure here vLLM runs unmodified."""
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
            from llmtop_vllm.api_server import front_end

            front_end.hook(os.environ[SOCKET_VARIABLE], log)
        except Exception:
            log.warning("llmtop: no queue limit and no aborts", exc_info=True)


def live_scheduler(chosen: Any) -> Any:
    """A subclass of the scheduler class that vLLM chose; its choice itself if that is not a class.

    With a subclass, the asynchronous scheduler keeps its behaviour, and vLLM's ``isinstance``
    checks have the same results.
    """
    if not isinstance(chosen, type) or not callable(getattr(chosen, "schedule", None)):
        return chosen

    class LiveScheduler(chosen):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._llmtop = attach(self)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            # The only cost while no option is changed; docs/reference/vllm.md gives the figure.
            control = self._llmtop
            if control is not None and control.tunables.attention:
                control.step()
            return super().schedule(*args, **kwargs)

    LiveScheduler.__name__ = chosen.__name__
    LiveScheduler.__qualname__ = chosen.__qualname__
    return LiveScheduler


def attach(scheduler: Any) -> SchedulerControl | None:
    """Attach to a new scheduler and open the socket. None on failure: vLLM runs unmodified."""
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
    """Install the introspection hooks; None if this scheduler's structure is unknown."""
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
    """The queue counters for the front ends; None if their file cannot be created."""
    try:
        return QueueCounters(path).open_rank(rank)
    except Exception:
        log.warning("llmtop: no queue limit: the queue counters cannot be shared", exc_info=True)
        return None


def socket_path(scheduler: Any, path: str) -> str:
    """The socket of this scheduler: ``path`` for rank 0, ``path.N`` for data-parallel rank N."""
    rank = rank_of(scheduler)
    return f"{path}.{rank}" if rank else path
