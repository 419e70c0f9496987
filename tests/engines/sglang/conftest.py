"""llmtop's plugin as SGLang imports it, on stand-ins."""

from __future__ import annotations

import importlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.sglang.adapter import PLUGIN_FOLDERS
from tests.fake_sglang import Launch, Registry, Scheduler

WAIT_S = 10.0


def until_it_listens(path: Path) -> None:
    """Wait for a plugin's socket: its file is there a moment before anybody listens."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                assert time.monotonic() < deadline, "nobody listens"
            else:
                return
        time.sleep(0.01)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir(mode=0o700)
    return tmp_path / "s" / "live"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, path: Path, registry: Registry) -> Iterator[ModuleType]:
    """The plugin as SGLang imports it: from PYTHONPATH, beside the modules that it needs."""
    for folder in PLUGIN_FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    modules: dict[str, dict[str, Any]] = {
        "sglang": {},
        "sglang.srt": {},
        "sglang.version": {"__version__": "0.0.test"},
        "sglang.srt.managers": {},
        "sglang.srt.managers.scheduler": {"Scheduler": Scheduler},
        "sglang.srt.managers.io_struct": {
            "AbortReq": SimpleNamespace,
            "GetInternalStateReq": SimpleNamespace,
            "SetInternalStateReq": SimpleNamespace,
        },
        "sglang.srt.plugins": {},
        "sglang.srt.plugins.hook_registry": {
            "HookRegistry": registry,
            "HookType": SimpleNamespace(BEFORE="before", AFTER="after", AROUND="around"),
        },
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("LLMTOP_LIVE_SOCKET", str(path))
    yield importlib.import_module("llmtop_sglang")
    for name in [name for name in sys.modules if name.startswith("llmtop_")]:
        del sys.modules[name]


@pytest.fixture
def launch(plugin: ModuleType, registry: Registry) -> Callable[..., Launch]:
    """Start a scheduler as SGLang does after it has loaded plugins."""

    def start(kind: type = Scheduler, *args: Any, **more: Any) -> Launch:
        plugin.register()
        return Launch(registry.apply(kind)(*args, **more))

    return start
