"""The simulated engine's command line and start, in this process."""

from __future__ import annotations

import pytest

from llmtop.engines.simulated.simulator.arguments import parse
from llmtop.engines.simulated.simulator.model.scheduler import Limits
from llmtop.engines.simulated.simulator.model.speculation import affinity
from llmtop.engines.simulated.simulator.startup import StartFailed, start


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-num-seq", "4"], "unrecognized arguments: --max-num-seq"),
        (["--max-num-seqs", "0"], "not within 1..65536"),
        (["--max-num-seqs", "many"], "invalid int value"),
        (["--gpu-memory-utilization", "nan"], "not within"),
        (["--gpu", "abacus"], "invalid choice"),
        (["--speculative", "magic:4"], "unknown method"),
        (["--speculative", "ngram:99"], "1 to 16"),
        (["--speculative", "ngram"], "METHOD:TOKENS"),
        (["--misbehave", "sing"], "unknown kind"),
        (["--misbehave", "crash:soon"], "not a number of seconds"),
        (["--misbehave", "stubborn:3"], "takes no seconds"),
    ],
)
def test_a_command_line_that_cannot_be_meant_exits_with_2(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "limits"),
    [
        ([], Limits(1024, 8192)),
        (["--gpu", "a100-80gb"], Limits(256, 2048)),
        (["--max-num-seqs", "8", "--speculative", "draft:3"], Limits(8, 8192, 3)),
    ],
)
def test_limits_are_vllms_for_the_card_unless_given(flags: list[str], limits: Limits) -> None:
    assert parse(flags).limits == limits


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "llama-3.1-70b"], "No available memory for the cache blocks"),
        (["--num-gpu-blocks-override", "20"], "larger than the available KV cache memory"),
        (["--max-num-batched-tokens", "512"], "greater than or equal to max_num_seqs"),
        (["--misbehave", "fail-start"], "No available memory for the cache blocks"),
    ],
)
async def test_what_does_not_fit_does_not_start(flags: list[str], words: str) -> None:
    with pytest.raises(StartFailed, match=words):
        await start(parse(["--startup-s", "0", *flags]))


async def test_the_phases_are_told_with_their_facts(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "llama-3.1-70b", "--tensor-parallel-size", "2", "--startup-s", "0"]
    assert await start(parse(flags)) > 1000
    told = capsys.readouterr().out
    facts = ["Starting to load", "Model loading took 65.7 GiB", "KV cache size", "Graph capturing"]
    places = [told.index(fact) for fact in facts]
    assert places == sorted(places)


def test_greedy_and_repetitive_requests_can_be_guessed() -> None:
    assert affinity([*range(100)], temperature=1.0) == pytest.approx(0.05)
    assert affinity([*range(100)], temperature=0.0) == 1.0
    assert affinity([1, 2, 3, 4] * 25, temperature=1.0) > 0.9
    assert affinity([7], temperature=1.3) == pytest.approx(0.05)
