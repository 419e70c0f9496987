"""Launches that could never be watched, and how many GPUs a launch takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.sglang import adapter as sglang
from llmtop.engines.tuning.nodes import refuse_other_nodes
from llmtop.engines.tuning.parallelism import gpus_needed
from llmtop.engines.vllm import adapter as vllm
from tests.llmtop_process import Home


@pytest.mark.parametrize(
    "args",
    [
        ("--headless",),
        ("--headless", "--data-parallel-size", "4"),
        ("--nnodes", "2", "--node-rank", "1"),
        ("--node-rank=3",),
        ("--node_rank", "1"),
        ("--api-server-count", "0"),
    ],
)
@pytest.mark.parametrize("adapter", [vllm.ADAPTER, sglang.ADAPTER], ids=["vllm", "sglang"])
def test_a_node_that_answers_nobody_is_refused(adapter: Adapter, args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="answers no requests") as caught:
        adapter.command(LaunchSpec("x", "a", "m", "127.0.0.1", 8000, args=args))
    assert "rank 0" in caught.value.hint


@pytest.mark.parametrize(
    "args",
    [(), ("--nnodes", "2", "--node-rank", "0"), ("--headless=false",), ("--no-headless",)],
)
def test_the_first_node_is_started(args: tuple[str, ...]) -> None:
    refuse_other_nodes(args)


def test_run_refuses_it_at_once_and_starts_nothing(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    done = home.run("run", "vllm", "m", "--bin", "/bin/true", "--detach", "--", "--headless")
    assert done.code == 2 and "--headless" in done.err and "answers no requests" in done.err
    assert home.run("ps", "--json").json["engines"] == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", 1),
        ("--tp 4", 4),
        ("--tp-size=4", 4),
        ("--tensor-parallel-size 4", 4),
        ("-tp 2 -pp 2", 4),
        ("--tp 2 --dp 2", 4),
        ("--tp 4 --dp 4 --enable-dp-attention", 4),
        ("--data-parallel-size 8 --data-parallel-size-local 2", 2),
        ("--tp 16 --nnodes 2 --node-rank 0", 8),
        ("--tp many", 1),
        ("--tp -3", 1),
    ],
)
def test_gpus_that_a_launch_takes(args: str, expected: int) -> None:
    assert gpus_needed(args.split()) == expected


def test_sglangs_short_flags_are_its_options() -> None:
    told = sglang.ADAPTER.launch_options(("--tp", "4", "--dp=2", "--pp", "1"))
    assert (told["tp_size"], told["dp_size"], told["pp_size"]) == (4, 2, 1)
