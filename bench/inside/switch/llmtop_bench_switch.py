"""A vLLM plugin for benchmarks: it removes llmtop's hooks from a running engine, or breaks them.

The file named by LLMTOP_BENCH_SWITCH has one word:

- ``off``: vLLM's own methods are called directly.
- ``on``: llmtop's hooks are installed again. So both arms of a comparison run in one engine.
- ``break:NAME``: this part of llmtop's introspection raises an error at each call.
- ``revive``: all parts are restored and installed, so that the next part can be broken.

The total CPU seconds of llmtop's hooks are written to FILE.engine.PID for the engine's thread, and
to FILE.front_end.PID for the event loop of a front end.

With LLMTOP_BENCH_ASYNC, vLLM uses asynchronous scheduling on a CPU, which it refuses otherwise.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

POLL_S = 0.02
MISSING = object()
PATCHES: list[tuple[Any, str, Any, Any]] = []  # owner, name, original, replacement
ENGINES: list[Any] = []
SERVERS: list[Any] = []


def register() -> None:
    """The entry point of the plugin."""
    path = os.environ.get("LLMTOP_BENCH_SWITCH")
    if os.environ.get("LLMTOP_BENCH_ASYNC"):
        _schedule_asynchronously()
    if not path or any(thread.name == "bench-switch" for thread in threading.enumerate()):
        return
    from llmtop_live.socket_server import SocketServer  # type: ignore[import-not-found]
    from llmtop_vllm import (  # type: ignore[import-not-found]
        engine_introspection,
        engine_loop,
    )
    from llmtop_vllm.api_server import front_end  # type: ignore[import-not-found]

    for module in (engine_introspection, engine_loop, front_end):
        module.patch = _remembering(module.patch)
    meters = [
        Meter(engine_introspection.EngineIntrospection, "engine"),
        Meter(front_end.FrontEnd, "front_end"),
    ]
    _collect(engine_introspection.EngineIntrospection, "install", ENGINES)
    _collect(SocketServer, "open", SERVERS)
    follow = threading.Thread(target=_follow, args=(Path(path), meters), name="bench-switch")
    follow.daemon = True
    follow.start()


class Meter:
    """CPU seconds that the hooks of one kind of holder took on the main thread of this process, in
    all: its ``_guarded`` runs each of them."""

    def __init__(self, holder: Any, kind: str) -> None:
        self.kind = kind
        self.seconds = 0.0
        original = holder._guarded

        def _guarded(guard: Any, *args: Any) -> None:
            begun = time.thread_time()
            original(guard, *args)
            if threading.current_thread() is threading.main_thread():
                self.seconds += time.thread_time() - begun

        holder._guarded = _guarded

    def write(self, path: Path) -> None:
        """Nothing where this process has no such holder."""
        if self.seconds:
            file = path.with_name(f"{path.name}.{self.kind}.{os.getpid()}")
            part = file.with_name(f"part.{file.name}")
            part.write_text(f"{self.seconds}")
            part.replace(file)  # a reader never sees half of it


def _schedule_asynchronously() -> None:
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    kind = type(current_platform)
    check = kind.check_and_update_config.__func__
    if getattr(check, "bench", False):
        return

    def check_and_update_config(cls: Any, config: Any) -> None:
        check(cls, config)
        config.scheduler_config.async_scheduling = True

    check_and_update_config.bench = True  # type: ignore[attr-defined]
    kind.check_and_update_config = classmethod(check_and_update_config)


def _collect(kind: Any, name: str, found: list[Any]) -> None:
    original = getattr(kind, name)

    def collecting(self: Any, *args: Any) -> Any:
        if self not in found:
            found.append(self)
        return original(self, *args)

    setattr(kind, name, collecting)


def _remembering(patch: Any) -> Any:
    def remembering(owner: Any, name: str, replacement: Any) -> Any:
        before = vars(owner).get(name, MISSING)
        if name != "build_middleware_stack":
            PATCHES.append((owner, name, before, replacement))
        return patch(owner, name, replacement)

    return remembering


def _follow(path: Path, meters: list[Meter]) -> None:
    before, on, broken = "on", True, []
    while True:
        time.sleep(POLL_S)
        for meter in meters:
            meter.write(path)
        try:
            word = path.read_text().strip()
        except OSError:
            continue
        if word in ("", before):  # an empty file is about to be written
            continue
        before = word
        if word in ("on", "off") and on != (word == "on"):
            on = not on
            _switch(on)
        elif word.startswith("break:"):
            broken.append(_break(word.removeprefix("break:")))
        elif word == "revive":
            while broken:
                setattr(*broken.pop())
            for engine in list(ENGINES):
                _revive(engine)


def _switch(on: bool) -> None:
    for owner, name, before, replacement in PATCHES:
        if on:
            setattr(owner, name, replacement)
        elif before is MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _break(name: str) -> tuple[Any, str, Any]:
    from llmtop_vllm.host_gap import HostGap  # type: ignore[import-not-found]
    from llmtop_vllm.request_clocks import RequestClocks  # type: ignore[import-not-found]
    from llmtop_vllm.request_rows import RequestRows  # type: ignore[import-not-found]
    from llmtop_vllm.step_recorder import StepRecorder  # type: ignore[import-not-found]

    holders = (StepRecorder, RequestClocks, RequestRows, HostGap)
    holder = next(one for one in holders if name in vars(one))
    whole = vars(holder)[name]

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("broken by the bench")

    setattr(holder, name, broken)
    return holder, name, whole


def _revive(engine: Any) -> None:
    import llmtop_vllm

    if engine.inside.off is None:
        return
    ENGINES.remove(engine)
    del PATCHES[:]
    path = os.environ[llmtop_vllm.SOCKET_VARIABLE]
    counters = llmtop_vllm.rank_counters(path, engine.inside.rank)
    new = type(engine)(
        engine._scheduler, engine._control, llmtop_vllm.log, counters, engine.inside.rank
    )
    new.install()
    for server in SERVERS:
        if server._introspection is engine.inside:
            server._introspection = new.inside
