"""What was found, in words."""

import pytest

from llmtop.loadgen.experiments.comparison import CompareResult
from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.paired_test import Measure, PairedRatio, Verdict, judge
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.loadgen.experiments.search import Answer, End
from llmtop.loadgen.experiments.slo import parse
from llmtop.values import replace
from llmtop.wording.findings import (
    comparison_sentence,
    finding_line,
    other_answers,
    saturation_sentence,
)

KNEE = Knee(128, 64, 128, 6618.0, 256)
FOUND = SaturationResult(
    parse("ttft=500ms,tpot=50ms"), (), (Answer(0.95, End.FOUND, 112, 120),), KNEE, None, 1024, 8.0,
    True,
)  # fmt: skip


def answered(**changes: object) -> str:
    answer = replace(FOUND.answers[0], **changes)
    return saturation_sentence(replace(FOUND, answers=(answer,), knee=None))


def test_the_answer_is_one_sentence() -> None:
    assert saturation_sentence(FOUND) == (
        "Holds TTFT <= 500ms and TPOT <= 50ms for 95% of requests up to 112 streams (112..120); "
        "the best throughput, 6,618 tok/s, starts at 128 streams (64..128)."
    )


def test_without_limits_it_speaks_of_throughput_alone() -> None:
    result = replace(FOUND, slo=None, answers=())
    assert saturation_sentence(result).startswith("The best throughput, 6,618 tok/s, starts at")
    rising = replace(result, knee=replace(KNEE, open_end=True))
    assert saturation_sentence(rising) == ("Throughput still rises at 256 streams, 6,618 tok/s.")
    cliff = replace(result, knee=replace(KNEE, cliff=512, cliff_share=0.6))
    assert "falls to 60% of it at 512 streams" in saturation_sentence(cliff)
    assert "Nothing was found" in saturation_sentence(replace(result, knee=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": End.NEVER, "level": None, "fails": 1}, "not even at 1 stream"),
        ({"end": End.UNDECIDED, "level": None, "fails": None}, "too few requests at each level"),
        ({"end": End.UNDECIDED, "level": None, "fails": 8}, "at 8 streams; below that, too few"),
        ({"end": End.BEYOND, "level": 64, "fails": None}, "no higher level failed"),
        ({"end": End.BEYOND, "level": 1024, "fails": None}, "the highest level that was tried"),
        ({"undecided": (116,)}, "(112..120; undecided at 116)"),
        ({"cliff": True}, "a cliff"),
    ],
)
def test_every_way_to_end_has_its_words(changes: dict[str, object], words: str) -> None:
    assert words in answered(**changes)


def test_a_client_at_its_limit_is_not_the_engines() -> None:
    answer = Answer(0.95, End.BEYOND, 64, None)
    result = replace(FOUND, answers=(answer,), ceiling=128, knee=None)
    assert saturation_sentence(result).endswith(
        "up to at least 64 streams; above that this client is the limit."
    )
    assert result.client_limited
    fails = replace(result, answers=(Answer(0.95, End.FOUND, 64, 72),))
    assert "client" not in saturation_sentence(fails) and not fails.client_limited


def test_a_client_that_could_not_carry_the_first_level_is_named_as_the_reason() -> None:
    answer = Answer(0.95, End.UNDECIDED, None, None)
    result = replace(FOUND, answers=(answer,), ceiling=4, knee=None)
    assert saturation_sentence(result).endswith(": this client could not sustain 4 streams.")


def compared(*findings: PairedRatio) -> CompareResult:
    return CompareResult(32, 8.0, (), findings, 0, True)


def test_a_winner_is_named_with_what_it_wins() -> None:
    better = judge(Measure.OUTPUT_TOKENS, [(100.0, 110.0), (100.0, 110.5), (101.0, 111.0)])
    assert better.verdict is Verdict.BETTER
    assert comparison_sentence(compared(better), "n=1", "n=\x1b[2J2") == (
        "n=2 is better in output tok/s (+10.1%) than n=1, over 3 pairs at 32 streams."
    )
    assert "+10.1% (+" in finding_line(better) and finding_line(better).endswith("better")


def test_no_winner_is_told_with_what_it_would_take() -> None:
    open_ = judge(Measure.TTFT_P50, [(1.0, 1.05), (1.0, 0.98), (1.0, 1.06), (1.0, 1.01)])
    assert comparison_sentence(compared(open_), "a", "b").startswith("Cannot tell b from a")
    assert f"cannot tell: about {open_.more_pairs} more pairs" in finding_line(open_)
    assert "no pair has a value" in finding_line(judge(Measure.TTFT_P50, []))
    assert "too few pairs" in finding_line(judge(Measure.TTFT_P50, [(1.0, 20.0)]))
    assert "x20" in finding_line(judge(Measure.TTFT_P50, [(1.0, 20.0)]))


def test_that_nothing_can_be_told_is_said_once_for_all_shares() -> None:
    untold = tuple(Answer(share, End.UNDECIDED, None, None) for share in (0.9, 0.95, 0.99))
    stopped = replace(FOUND, answers=untold, knee=None)
    said = [saturation_sentence(stopped), *other_answers(stopped)]
    assert [line.count("Unknown whether") for line in said] == [1]
    easier = (Answer(0.9, End.FOUND, 8, 16), *untold[1:])
    (line,) = other_answers(replace(stopped, answers=easier))
    assert line.startswith("Holds") and "90%" in line
