"""llmtop inside a running SGLang: a plugin of the group ``sglang.srt.plugins``.

SGLang calls ``register`` in each of its processes. It takes effect only if LLMTOP_LIVE_SOCKET is
set. In a process that runs a scheduler, the plugin reports steps, latencies and requests, aborts
requests, and changes options between two batches (``scheduler_introspection``,
``scheduler_control``). In the process that serves HTTP, it refuses requests above a limit
(``front_end``).

The plugin inspects the scheduler to find what it can report and change; it never uses the version.
It was written for the schedulers of SGLang 0.5.12 to 0.5.23; docs/reference/sglang.md lists those
that were tested. Code that does not depend on SGLang is in ``llmtop_live``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

from llmtop_live.socket_server import SocketServer

from llmtop_sglang.front_end import around_stack
from llmtop_sglang.ranks import Ranks, socket_path
from llmtop_sglang.request_times import propagate_arrival
from llmtop_sglang.scheduler_control import SchedulerControl
from llmtop_sglang.scheduler_introspection import SchedulerIntrospection
from llmtop_sglang.shared_queue import REFUSED_SUFFIX, SUFFIX, QueueWriter, refused_reader

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"
MODULE = "sglang.srt.managers.scheduler"
CONTROLLER = "sglang.srt.managers.data_parallel_controller"
UNSEEN = object()

log = logging.getLogger("sglang.llmtop")


def register() -> None:
    """The entry point. After a failure here SGLang runs unmodified."""
    if not os.environ.get(SOCKET_VARIABLE):
        return
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        # The process without a parent in multiprocessing serves HTTP.
        if multiprocessing.parent_process() is None:
            HookRegistry.register(
                "fastapi.applications.FastAPI.build_middleware_stack", around_stack, HookType.AROUND
            )
        if CONTROLLER in sys.modules:
            propagate_arrival()
        # A process that has not loaded this module runs no scheduler.
        if MODULE not in sys.modules:
            return
        for target, hook, kind in (
            ("process_input_requests", between_batches, HookType.BEFORE),
            ("set_internal_state", around_set_internal_state, HookType.AROUND),
            ("get_internal_state", after_get_internal_state, HookType.AFTER),
            ("abort_request", around_abort_request, HookType.AROUND),
            ("_poll_timeout_aborts", after_poll_timeout_aborts, HookType.AFTER),
        ):
            if hasattr(sys.modules[MODULE].Scheduler, target):
                HookRegistry.register(f"{MODULE}.Scheduler.{target}", hook, kind)
        HookRegistry.register(
            "sglang.srt.managers.schedule_batch.ScheduleBatch.retract_decode",
            after_retract_decode,
            HookType.AFTER,
        )
        HookRegistry.register(
            "sglang.srt.mem_cache.common.release_kv_cache",
            before_release_kv_cache,
            HookType.BEFORE,
        )
    except Exception:
        log.exception("llmtop: no live options: this SGLang has a different structure")


ATTACHED: list[SchedulerIntrospection] = []  # of this process; at most one


def between_batches(scheduler: Any, *_: Any, **__: Any) -> None:
    """Before ``process_input_requests``: each of SGLang's loops calls it between two batches."""
    control: Any = getattr(scheduler, "llmtop_control", UNSEEN)
    if control is UNSEEN:
        control = attach(scheduler)
    if control is not None and control.tunables.attention:
        control.step()
    inside = getattr(scheduler, "llmtop_inside", None)
    if inside is not None:
        inside.round_begins()


def around_set_internal_state(
    original: Any, scheduler: Any, request: Any, *rest: Any, **more: Any
) -> Any:
    """Around ``set_internal_state``, which SGLang sends to all ranks in the same round.

    With several ranks, llmtop's own changes use it too. With one rank, another program may use it
    to change an option that llmtop reports.
    """
    control = getattr(scheduler, "llmtop_control", None)
    if control is None:
        return original(scheduler, request, *rest, **more)
    answer = original(scheduler, control.apply_on_every_rank(request) or request, *rest, **more)
    control.after_native_change(request, answer)
    return answer


def after_get_internal_state(answer: Any, scheduler: Any, *_: Any, **__: Any) -> None:
    """After ``get_internal_state``: add the values in force, as SGLang reports launch values."""
    control = getattr(scheduler, "llmtop_control", None)
    if control is not None:
        control.report_values(answer)


def around_abort_request(
    original: Any, scheduler: Any, request: Any, *rest: Any, **more: Any
) -> Any:
    """Around ``abort_request``: handle llmtop's aborts, which SGLang sent to all ranks."""
    inside = getattr(scheduler, "llmtop_inside", None)
    if inside is not None and inside.handle_broadcast(request):
        return None
    return original(scheduler, request, *rest, **more)


def after_poll_timeout_aborts(aborts: Any, scheduler: Any, *_: Any, **__: Any) -> Any:
    """After ``_poll_timeout_aborts``: SGLang sends the lead rank's result to all ranks."""
    inside = getattr(scheduler, "llmtop_inside", None)
    extra = inside.extra_aborts() if inside is not None else []
    return [*aborts, *extra] if extra else None


def after_retract_decode(answer: Any, *_: Any, **__: Any) -> None:
    """After running requests were retracted because the KV cache was full."""
    for inside in ATTACHED:
        inside.retracted(answer)


def before_release_kv_cache(request: Any, *_: Any, **__: Any) -> None:
    """Before a request releases its KV cache."""
    for inside in ATTACHED:
        inside.released(request)


def attach(scheduler: Any) -> SchedulerControl | None:
    """Attach to a scheduler and open the socket. None on failure: SGLang runs unmodified."""
    try:
        scheduler.llmtop_control = None  # first, so that a failure is not retried in each round
        from sglang.version import __version__

        ranks = Ranks(scheduler)
        control = SchedulerControl(scheduler, str(__version__), log, ranks)
        path = os.environ[SOCKET_VARIABLE]
        inside = _inside(scheduler, ranks, control, path)
        if ranks.lead:
            introspection = inside.introspection if inside is not None else None
            SocketServer(socket_path(path, ranks.data), control.tunables, log, introspection).open()
        scheduler.llmtop_control = control
        return control
    except Exception:
        log.exception("llmtop: no live options on this scheduler")
        return None


def _queue_writer(path: str, control: SchedulerControl) -> QueueWriter | None:
    try:
        return QueueWriter(path, control.cap)
    except OSError as error:
        log.warning("llmtop: no queue limit: %s", error)
        return None


def _unknown() -> int | None:
    return None


def _inside(
    scheduler: Any, ranks: Ranks, control: SchedulerControl, path: str
) -> SchedulerIntrospection | None:
    """Install the introspection; on a rank that is not the lead, only what it does in lockstep."""
    try:
        writer: QueueWriter | None = None
        refused: Callable[[], int | None] = _unknown
        if ranks.lead:
            writer = _queue_writer(socket_path(path, ranks.data) + SUFFIX, control)
            if ranks.data == 0:
                refused = refused_reader(f"{path}.front.0{REFUSED_SUFFIX}")
        inside = SchedulerIntrospection(scheduler, ranks, log, writer, refused)
        control.tunables.wake = inside.wake.wake
        scheduler.llmtop_inside = inside
        ATTACHED[:] = [inside]
        return inside
    except Exception:
        log.exception("llmtop: no introspection of this scheduler")
        return None
