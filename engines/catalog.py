"""The engines that llmtop knows: a fourth one is its module and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from llmtop import UsageError
from llmtop.engines import sglang, simulated, tensorrt_llm, vllm
from llmtop.engines.adapter import Adapter

ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        adapter.kind: adapter
        for adapter in (simulated.ADAPTER, vllm.ADAPTER, sglang.ADAPTER, tensorrt_llm.ADAPTER)
    }
)


def adapter_named(kind: str) -> Adapter:
    """The adapter called ``kind``; a UsageError that lists what there is when there is none."""
    if kind in ADAPTERS:
        return ADAPTERS[kind]
    near = difflib.get_close_matches(kind, ADAPTERS, n=1)
    raise UsageError(
        f"there is no engine {kind!r}",
        (f"did you mean {near[0]}? " if near else "") + "the engines are " + ", ".join(ADAPTERS),
    )
