"""llmtop inside a running SGLang: a plugin of the group ``sglang.srt.plugins``.

SGLang calls ``register`` in each of its processes, and it does something only where
LLMTOP_LIVE_SOCKET is set. In a process that runs a scheduler it shows steps, latencies and
requests, ends requests, and changes options between two batches (``scheduler_inside``,
``scheduler_control``). In the one that serves HTTP it refuses requests above a limit
(``front_end``).

What can be shown and changed is found by looking at the scheduler, never by the version. Written
against the schedulers of SGLang 0.5.12 to 0.5.23; docs/reference/sglang.md says which of them ran.
What knows nothing of SGLang belongs into ``llmtop_live``.
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
from llmtop_sglang.queue_board import REFUSED_SUFFIX, SUFFIX, QueueBoard, refused_reader
from llmtop_sglang.ranks import Ranks, socket_path
from llmtop_sglang.request_times import carry_arrival
from llmtop_sglang.scheduler_control import SchedulerControl
from llmtop_sglang.scheduler_inside import SchedulerInside

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"
MODULE = "sglang.srt.managers.scheduler"
CONTROLLER = "sglang.srt.managers.data_parallel_controller"
UNSEEN = object()

log = logging.getLogger("sglang.llmtop")


def register() -> None:
    """The entry point. A failure in here leaves a stock SGLang behind."""
    if not os.environ.get(SOCKET_VARIABLE):
        return
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        # The process that was started by hand serves HTTP.
        if multiprocessing.parent_process() is None:
            HookRegistry.register(
                "fastapi.applications.FastAPI.build_middleware_stack", around_stack, HookType.AROUND
            )
        if CONTROLLER in sys.modules:
            carry_arrival()
        # Where that module is not loaded, no scheduler will run: nothing else need import it.
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


INSIDE: list[SchedulerInside] = []  # of this process: one at most


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
    """Around ``set_internal_state``, which SGLang hands to all ranks in the same round.

    Where there are several ranks it is the way for our values too. Else somebody may have used it
    to set what we show.
    """
    control = getattr(scheduler, "llmtop_control", None)
    if control is None:
        return original(scheduler, request, *rest, **more)
    answer = original(scheduler, control.take_on_every_rank(request) or request, *rest, **more)
    control.after_foreign_change(request, answer)
    return answer


def after_get_internal_state(answer: Any, scheduler: Any, *_: Any, **__: Any) -> None:
    """After ``get_internal_state``: SGLang itself reports launch values here, after a change."""
    control = getattr(scheduler, "llmtop_control", None)
    if control is not None:
        control.report_values(answer)


def around_abort_request(
    original: Any, scheduler: Any, request: Any, *rest: Any, **more: Any
) -> Any:
    """Around ``abort_request``: one of ours came to all ranks in this round."""
    inside = getattr(scheduler, "llmtop_inside", None)
    if inside is not None and inside.carried(request):
        return None
    return original(scheduler, request, *rest, **more)


def after_poll_timeout_aborts(aborts: Any, scheduler: Any, *_: Any, **__: Any) -> Any:
    """After ``_poll_timeout_aborts``, what it returns on the lead rank goes to all ranks."""
    inside = getattr(scheduler, "llmtop_inside", None)
    extra = inside.extra_aborts() if inside is not None else []
    return [*aborts, *extra] if extra else None


def after_retract_decode(answer: Any, *_: Any, **__: Any) -> None:
    """After running requests were put back because the KV cache was full."""
    for inside in INSIDE:
        inside.retracted(answer)


def before_release_kv_cache(request: Any, *_: Any, **__: Any) -> None:
    """Before a request gives its KV cache back."""
    for inside in INSIDE:
        inside.released(request)


def attach(scheduler: Any) -> SchedulerControl | None:
    """Take control of a scheduler and open the socket. On failure None: a stock engine."""
    try:
        scheduler.llmtop_control = None  # first: what fails once is not tried in each round
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


def _board(path: str, control: SchedulerControl) -> QueueBoard | None:
    try:
        return QueueBoard(path, control.cap)
    except OSError as error:
        log.warning("llmtop: no queue limit: %s", error)
        return None


def _unknown() -> int | None:
    return None


def _inside(
    scheduler: Any, ranks: Ranks, control: SchedulerControl, path: str
) -> SchedulerInside | None:
    """What is shown of a scheduler; on ranks that only follow, what they do in step with others."""
    try:
        board: QueueBoard | None = None
        refused: Callable[[], int | None] = _unknown
        if ranks.lead:
            board = _board(socket_path(path, ranks.data) + SUFFIX, control)
            if ranks.data == 0:
                refused = refused_reader(f"{path}.front.0{REFUSED_SUFFIX}")
        inside = SchedulerInside(scheduler, ranks, log, board, refused)
        control.tunables.wake = inside.wake.wake
        scheduler.llmtop_inside = inside
        INSIDE[:] = [inside]
        return inside
    except Exception:
        log.exception("llmtop: this scheduler shows nothing of its inside")
        return None
