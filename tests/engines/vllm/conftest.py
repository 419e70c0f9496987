"""The plugin as vLLM imports it, with stand-ins for the modules of vLLM that it needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from llmtop.engines.vllm.adapter import PLUGIN_FOLDERS


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The plugin as vLLM imports it: from PYTHONPATH, beside the two modules that it needs."""
    for folder in PLUGIN_FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    config = ModuleType("vllm.config.scheduler")
    config.SchedulerConfig = type(  # type: ignore[attr-defined]
        "SchedulerConfig", (), {"get_scheduler_cls": lambda self: self.scheduler_cls}
    )
    version = ModuleType("vllm.version")
    version.__version__ = "0.0.test"  # type: ignore[attr-defined]
    for module in (ModuleType("vllm"), ModuleType("vllm.config"), config, version):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "s").mkdir(mode=0o700)
    monkeypatch.setenv("LLMTOP_LIVE_SOCKET", str(tmp_path / "s" / "live"))
    yield importlib.import_module("llmtop_vllm")
    for name in [name for name in sys.modules if name.startswith(("llmtop_live", "llmtop_vllm"))]:
        del sys.modules[name]
