"""The engines that llmtop knows. A new engine is a folder and one line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter

# The module of each adapter, by kind. Its tables are long, so it is imported on first use.
_MODULES = {
    "sim": "simulated",
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt_llm",
}


class _Catalog(Mapping[str, Adapter]):
    def __getitem__(self, kind: str) -> Adapter:
        adapter: Adapter = import_module(f"llmtop.engines.{_MODULES[kind]}.adapter").ADAPTER
        return adapter

    def __contains__(self, kind: object) -> bool:
        return kind in _MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


ADAPTERS: Mapping[str, Adapter] = _Catalog()


def adapter_named(kind: str) -> Adapter:
    """The adapter called ``kind``. Raises UsageError, which lists the known kinds."""
    if kind in ADAPTERS:
        return ADAPTERS[kind]
    import difflib

    near = difflib.get_close_matches(kind, ADAPTERS, n=1)
    raise UsageError(
        f"there is no engine {kind!r}",
        (f"did you mean {near[0]}? " if near else "") + "the engines are " + ", ".join(ADAPTERS),
    )
