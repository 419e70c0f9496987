import random
import statistics

import pytest

from llmtop import UsageError
from llmtop.loadgen.workload.lengths import (
    Lengths,
    LogNormal,
    Pauses,
    check_lengths,
    check_pauses,
    draw_pause,
    draw_tokens,
    parse_lengths,
    parse_pauses,
)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (128, (128, 128)),
        ("128", (128, 128)),
        (" 64..256 ", (64, 256)),
        ("64 .. 256", (64, 256)),
        ("lognormal 512 cv 0.8 max 4096", LogNormal(512, 0.8, 4096)),
        ("LogNormal 100 cv 1", LogNormal(100, 1.0, 1600)),
    ],
)
def test_lengths_are_read(text: int | str, lengths: Lengths) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "5..3",
        "5..",
        "..5",
        "-3",
        "1.5",
        "lognormal 5",
        "lognormal x cv 1",
        "5 6",
        "9" * 30,
    ],
)
def test_what_is_no_length_says_how_one_is_written(text: str) -> None:
    with pytest.raises(UsageError, match="is not a length in tokens") as caught:
        parse_lengths(text)
    assert "448..576" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "pauses"),
    [
        ("0", (0.0, 0.0)),
        ("2s", (2.0, 2.0)),
        ("2", (2.0, 2.0)),
        ("500ms..3s", (0.5, 3.0)),
        ("lognormal 5s cv 1 max 1m", LogNormal(5, 1, 60)),
    ],
)
def test_pauses_are_read(text: str, pauses: Pauses) -> None:
    assert parse_pauses(text) == pauses


@pytest.mark.parametrize("text", ["", "2q", "3s..", "-1s", "lognormal x cv 1"])
def test_what_is_no_pause(text: str) -> None:
    with pytest.raises(UsageError, match="is not a pause"):
        parse_pauses(text)


@pytest.mark.parametrize(
    "lengths",
    [(0, 5), (6, 5), (1, 10**9), LogNormal(0, 1, 10), LogNormal(50, 1, 10), LogNormal(50, -1, 99),
     LogNormal(50, float("nan"), 99), LogNormal(50, 99, 99)],
)  # fmt: skip
def test_impossible_lengths(lengths: Lengths) -> None:
    with pytest.raises(UsageError):
        check_lengths("prompt_tokens", lengths)


@pytest.mark.parametrize("pauses", [(3.0, 1.0), (-1.0, 1.0), (0.0, 1e9), LogNormal(0, 1, 5)])
def test_impossible_pauses(pauses: Pauses) -> None:
    with pytest.raises(UsageError):
        check_pauses("think", pauses)


def test_uniform_lengths_are_equally_often() -> None:
    found = draw_tokens((10, 13), 1000, random.Random(1))
    assert {length: found.count(length) for length in set(found)} == dict.fromkeys(
        (10, 11, 12, 13), 250
    )


@pytest.mark.parametrize("seed", range(5))
def test_log_normal_lengths_have_the_mean_and_spread_that_were_asked_for(seed: int) -> None:
    found = draw_tokens(LogNormal(500, 0.8, 50_000), 1024, random.Random(seed))
    assert statistics.mean(found) == pytest.approx(500, rel=0.02)
    assert statistics.pstdev(found) == pytest.approx(400, rel=0.08)
    # The median of a log-normal is mean / sqrt(1 + cv^2).
    assert statistics.median(found) == pytest.approx(500 / 1.64**0.5, rel=0.02)


def test_a_log_normal_ends_at_its_highest_without_piling_up_there() -> None:
    found = draw_tokens(LogNormal(100, 1.0, 150), 1024, random.Random(1))
    assert max(found) <= 150
    assert found.count(150) < 20
    assert len(set(draw_tokens(LogNormal(77, 0.0, 99), 50, random.Random(1)))) == 1


def test_the_seed_decides() -> None:
    spread = LogNormal(100, 1.0, 900)
    draws = [draw_tokens(spread, 64, random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_pauses_keep_within_their_bounds() -> None:
    chosen = random.Random(1)
    assert all(1 <= draw_pause((1.0, 2.0), chosen) <= 2 for _ in range(200))
    assert all(0 < draw_pause(LogNormal(2, 1, 5), chosen) <= 5 for _ in range(200))
    assert draw_pause((0.0, 0.0), chosen) == 0
