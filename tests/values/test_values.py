"""Values that hold secrets: a traceback, a log or a failed assertion shows none of them."""

from __future__ import annotations

import pytest
from msgspec import Struct
from rich.pretty import pretty_repr

from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.supervision.launch_context import LaunchContext
from llmtop.engines.supervision.restart import Wanted
from llmtop.loadgen.workload.plan import Target

SPEC = LaunchSpec("vllm", "llama", "meta/llama", "127.0.0.1", 8000, environment=(("K", "sk-1"),))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SPEC, "name='llama'"),
        (LaunchContext(SPEC, {"K": "sk-1"}, "/home/me"), "folder='/home/me'"),
        (Wanted({}, ("--api-key", "sk-1"), (1,)), "gpus=(1,)"),
        (Target("http://h:1", "m", api_key="sk-1"), "url='http://h:1'"),
    ],
)
def test_a_secret_is_in_no_representation(value: Struct, shown: str) -> None:
    for text in (repr(value), f"{[value]}", pretty_repr(value)):
        assert shown in text.replace("\n", "") and "sk-1" not in text
