"""Which starts are expected to take as long as each other."""

from __future__ import annotations

import pytest

from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.state.startup_times import startup_key
from llmtop.values import replace

SPEC = LaunchSpec("vllm", "a", "/m", "127.0.0.1", 8000, args=("--max-num-seqs", "64"))


@pytest.mark.parametrize("args", [
    ("--tensor-parallel-size", "2"),
    ("--enforce-eager",),
    ("--quantization=fp8",),
    ("--speculative_config", '{"method": "ngram"}'),
    ("--load-format", "dummy"),
])  # fmt: skip
def test_a_flag_that_matters_makes_another_start(args: tuple[str, ...]) -> None:
    assert startup_key(replace(SPEC, args=(*SPEC.args, *args))) != startup_key(SPEC)


def test_another_program_or_model_makes_another_start() -> None:
    assert startup_key(replace(SPEC, program=("/v2/bin/vllm",))) != startup_key(SPEC)
    assert startup_key(replace(SPEC, model="/n")) != startup_key(SPEC)
    assert startup_key(replace(SPEC, kind="sglang")) != startup_key(SPEC)


def test_what_changes_little_does_not() -> None:
    same = replace(SPEC, name="b", port=9, args=("--max-num-seqs", "8", "--served-model-name", "x"))
    assert startup_key(same) == startup_key(SPEC)
    one = replace(SPEC, args=("--dtype", "half", "--enforce-eager"))
    other = replace(SPEC, args=("--enforce-eager", "--dtype=half"))
    assert startup_key(one) == startup_key(other)
