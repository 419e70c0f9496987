from datetime import UTC

import pytest

from llmtop.engines.core.options import Applies
from llmtop.engines.core.samples import Quantile
from llmtop.wording import format as f


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "--"), (0, "0"), (0.4, "0.4"), (54.71, "54.7"), (6618.2, "6,618"), (27_100, "27.1k")],
)
def test_rates(value: float | None, text: str) -> None:
    assert f.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "--"), (0, "0"), (920, "920"), (8000, "8k"), (607_400, "607k"), (999_999, "1M")],
)
def test_short_numbers(value: float | None, text: str) -> None:
    assert f.short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "--"),
        (0.0, "0"),
        (2e-5, "20us"),
        (0.0082, "8.2ms"),
        (0.180, "180ms"),
        (0.9996, "1s"),
        (1.912, "1.91s"),
        (12.3, "12.3s"),
        (125.0, "2m05s"),
    ],
)
def test_latencies(seconds: float | None, text: str) -> None:
    assert f.latency(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "--"), (-3, "0s"), (42.9, "42s"), (4321, "1h12m"), (273_600, "3d04h")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert f.duration(seconds) == text


def test_a_quantile_says_what_its_buckets_cannot_tell() -> None:
    assert f.quantile(Quantile(0.3, "<")) == "<300ms"
    assert f.quantile(Quantile(80, ">")) == ">80s"
    assert f.quantile(Quantile(0.412)) == "412ms"
    assert f.quantile(Quantile(5.0, "-", 10.0)) == "5-10s"
    assert f.quantile(Quantile(0.75, "-", 1.0)) == "750ms-1s"
    assert f.quantile(Quantile(0.001, "-", 0.005)) == "1-5ms"
    assert f.quantile(Quantile(0.0005, "-", 0.001)) == "500us-1ms"
    assert f.quantile(Quantile(0.0075, "-", 0.01)) == "7.5-10ms"
    assert f.quantile(Quantile(80.0, "-", 160.0)) == "80s-2m40s"
    assert f.quantile(None) == "--"
    assert f.quantile(None) == "--"


def test_a_little_is_not_nothing_and_nothing_is_not_unknown() -> None:
    assert [f.percent(v) for v in (None, 0.0, 0.0004, 0.66, 1.0)] == [
        "--",
        "0%",
        "0.1%",
        "66%",
        "100%",
    ]


def test_times_of_day_follow_the_zone() -> None:
    assert f.clock(1_800_000_000.0, UTC) == "08:00:00"


def test_how_a_change_applies() -> None:
    assert f.applies(Applies.LIVE) == "live"
    assert f.applies(Applies.LIVE_UP_TO_LAUNCH, 1024) == "live to 1,024"
    assert f.applies(Applies.RESTART, startup_s=98) == "restart ~1m38s"
