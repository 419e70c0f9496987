"""Arguments for a restart: what was asked for is changed, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from llmtop import UsageError
from llmtop.engines.core.options import OptionValue
from llmtop.engines.registry import ADAPTERS
from llmtop.engines.tuning import argv_editor

VLLM, SIM, TRT = ADAPTERS["vllm"], ADAPTERS["sim"], ADAPTERS["tensorrt-llm"]


def vllm(args: str, changes: Mapping[str, OptionValue]) -> str:
    return " ".join(argv_editor.with_options(VLLM, args.split(), changes))


@pytest.mark.parametrize(
    ("args", "changes", "new"),
    [
        ("", {"max_model_len": 4096}, "--max-model-len 4096"),
        (
            "--seed 1 --max-model-len 8192 --x",
            {"max_model_len": 4096},
            "--seed 1 --max-model-len 4096 --x",
        ),
        ("--max_model_len=8k --x", {"max_model_len": 4096}, "--max-model-len 4096 --x"),
        # The last one counts, so all of them go.
        (
            "--max-model-len 1 --y --max-model-len=2",
            {"max_model_len": 3},
            "--max-model-len 3 --y",
        ),
        ("--gpu-memory-utilization 0.9", {"gpu_memory_utilization": 0.85},
         "--gpu-memory-utilization 0.85"),
        ("--device-memory-utilization 0.9", {"gpu_memory_utilization": 0.5},
         "--gpu-memory-utilization 0.5"),
        ("-tp 2 --x", {"tensor_parallel_size": 4}, "--tensor-parallel-size 4 --x"),
        ("--max-model-len 8192 --x", {"max_model_len": None}, "--x"),
        ("--x", {"enable_prefix_caching": False}, "--x --no-enable-prefix-caching"),
        ("--enable-prefix-caching --x", {"enable_prefix_caching": False},
         "--no-enable-prefix-caching --x"),
        ("--no-enable-prefix-caching", {"enable_prefix_caching": True}, "--enable-prefix-caching"),
        # Off is what vLLM does by itself, and some engines have no other word for it.
        ("--enforce-eager --x", {"enforce_eager": False}, "--x"),
        ("--enforce-eager --x 1", {"enforce_eager": True}, "--enforce-eager --x 1"),
        (
            "--seed -1 --max-model-len -1",
            {"max_model_len": 5, "kv_cache_dtype": "fp8"},
            "--seed -1 --max-model-len 5 --kv-cache-dtype fp8",
        ),
    ],
)  # fmt: skip
def test_a_flag_is_changed_where_it_stands(
    args: str, changes: dict[str, OptionValue], new: str
) -> None:
    assert vllm(args, changes) == new
    # And the engine's table reads back what was written.
    read = VLLM.launch_options(new.split())
    for name, value in changes.items():
        assert read.get(name, False if value is False else None) == value


def config(args: tuple[str, ...]) -> dict[str, object]:
    (at,) = [n for n, word in enumerate(args) if word == "--speculative-config"]
    found: dict[str, object] = json.loads(args[at + 1])
    return found


def test_the_speculative_configuration_is_edited() -> None:
    given = ("-sc", '{"method": "eagle3", "model": "/m", "num_speculative_tokens": 3}', "--x")
    new = argv_editor.with_options(VLLM, given, {"num_speculative_tokens": 5})
    assert new[2:] == ("--x",)
    assert config(new) == {"method": "eagle3", "model": "/m", "num_speculative_tokens": 5}
    # The draft model does not go along to n-grams.
    new = argv_editor.with_options(VLLM, given, {"speculative_method": "ngram"})
    assert "model" not in config(new)
    assert config(new)["method"] == "ngram" and config(new)["num_speculative_tokens"] == 3
    assert argv_editor.with_options(VLLM, given, {"num_speculative_tokens": 0}) == ("--x",)


def test_speculation_given_key_by_key_becomes_one_configuration() -> None:
    given = ("--speculative-config.method=ngram", "--speculative_config.num_speculative_tokens",
             "4", "--speculative-config.prompt_lookup_max", "6", "--x")  # fmt: skip
    new = argv_editor.with_options(VLLM, given, {"num_speculative_tokens": 2})
    assert new[2:] == ("--x",)
    assert config(new)["num_speculative_tokens"] == 2
    assert config(new)["method"] == "ngram"


def test_speculation_that_was_not_armed_is_armed_with_ngrams() -> None:
    new = config(argv_editor.with_options(VLLM, (), {"num_speculative_tokens": 4}))
    assert (new["method"], new["num_speculative_tokens"]) == ("ngram", 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speculative_method": "ngram"}, "num_speculative_tokens"),
        ({"speculative_method": "eagle3", "num_speculative_tokens": 3}, "draft model"),
        ({"max_len": 3}, "max_len"),
    ],
)
def test_what_cannot_be_said_is_refused(changes: dict[str, OptionValue], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        argv_editor.with_options(VLLM, (), changes)
    assert words in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("args", "changes", "new"),
    [
        ("", {"num_speculative_tokens": 4}, "--speculative ngram:4"),
        ("--speculative draft:4 --x", {"num_speculative_tokens": 2}, "--speculative draft:2 --x"),
        ("--speculative=ngram:4", {"speculative_method": "draft"}, "--speculative draft:4"),
        ("--speculative ngram:4 --x", {"num_speculative_tokens": 0}, "--x"),
        ("--max-num-seqs 8", {"max_num_seqs": 16}, "--max-num-seqs 16"),
        ("--enable-prefix-caching", {"enable_prefix_caching": False}, "--no-enable-prefix-caching"),
    ],
)
def test_the_simulators_own_words(args: str, changes: dict[str, OptionValue], new: str) -> None:
    assert " ".join(argv_editor.with_options(SIM, args.split(), changes)) == new


def test_tensorrt_llm_writes_what_has_no_flag_into_its_file() -> None:
    new = argv_editor.with_options(
        TRT, ("--max_batch_size", "8"), {"max_batch_size": 16, "enable_block_reuse": False}
    )
    assert new == ("--max_batch_size", "16", "--set", "kv_cache_config.enable_block_reuse=false")


@pytest.mark.parametrize(
    ("args", "extra", "new"),
    [
        ("--a 1 --b", "--c x", "--a 1 --b --c x"),
        ("--a 1 --b", "--a=2", "--b --a=2"),
        ("--x --a 1", "--no-x", "--a 1 --no-x"),
        ("--no-x --a 1", "--x", "--a 1 --x"),
        ("--a 1 2 --b", "--a 3", "--b --a 3"),
        ("-q fp8 --a 1", "-q awq", "--a 1 -q awq"),
    ],
)
def test_any_flag_as_free_text_takes_the_place_of_the_one_before(
    args: str, extra: str, new: str
) -> None:
    assert " ".join(argv_editor.with_flags(args.split(), extra.split())) == new


@pytest.mark.parametrize(
    ("args", "without", "new"),
    [
        ("--seed 1 --x", ["--seed"], "--x"),
        ("--seed=1 --x", ["seed"], "--x"),
        ("--x --seed 1 --seed 2", ["--seed"], "--x"),
        ("--max_model_len 8k --x", ["--max-model-len"], "--x"),
        ("--max-model-len 8k --x", ["max_model_len"], "--x"),
        ("--enforce-eager --x", ["--enforce-eager"], "--x"),
        ("--no-enable-prefix-caching --x", ["--enable-prefix-caching"], "--x"),
        ("--enable-prefix-caching --x", ["--no-enable-prefix-caching"], "--x"),
        ("-tp 2 --x", ["--tensor-parallel-size"], "--x"),
        ("--tensor-parallel-size 2 --x", ["-tp"], "--x"),
        ("--data-parallel-size 2 --x", ["-dp"], "--x"),
        ("--middleware a b c --x", ["--middleware"], "--x"),
        ("--speculative-config.method ngram --x", ["--speculative-config"], "--x"),
        ("--seed -1 --x", ["--seed"], "--x"),
        ("--a 1 --b 2 --c", ["--a", "--c"], "--b 2"),
        ("--seed 1 --seeds 2", ["--seed"], "--seeds 2"),
    ],
)
def test_a_flag_is_dropped_by_any_of_its_names(args: str, without: list[str], new: str) -> None:
    assert " ".join(argv_editor.without_flags(args.split(), without, VLLM.long_flag)) == new


def test_a_flag_that_is_not_there_cannot_be_dropped() -> None:
    with pytest.raises(UsageError, match="not started with --seed") as told:
        argv_editor.without_flags(["--x", "--y=1"], ["--seed"])
    assert told.value.hint == "it was started with --x, --y"
    with pytest.raises(UsageError, match="not started with --x"):
        argv_editor.without_flags(["--x"], ["--x", "--x"])
