"""The catalog of engines: each kind leads to the adapter of that kind."""

from __future__ import annotations

import pytest

from llmtop import UsageError
from llmtop.engines.registry import ADAPTERS, adapter_named


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_each_kind_is_the_adapters_own(kind: str) -> None:
    assert ADAPTERS[kind].kind == adapter_named(kind).kind == kind


def test_a_kind_that_is_not_there_is_no_adapter() -> None:
    assert "vlm" not in ADAPTERS
    with pytest.raises(UsageError) as caught:
        adapter_named("vlm")
    assert "did you mean vllm?" in caught.value.hint
