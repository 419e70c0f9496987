import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop import UsageError
from llmtop.loadgen.workload.shape import MAX_LEVEL, parse, parse_duration


@pytest.mark.parametrize(
    ("text", "duration", "levels"),
    [
        ("8", None, {0: 8, 1e6: 8}),
        ("hold 8", None, {0: 8, 3600: 8}),
        ("hold 2.5 for 20s", 20, {0: 2.5, 19.999: 2.5, 20: 0}),
        ("hold 8 over 500ms", 0.5, {0.4: 8, 0.5: 0}),
        ("ramp 1..256 over 60s", 60, {0: 1, 30: 128.5, 59.999999: 256, 60: 0}),
        ("ramp 10..0 over 10s", 10, {0: 10, 5: 5}),
        ("staircase 1..7 step 3 every 10s", 30, {0: 1, 9.9: 1, 10: 4, 20: 7, 29.9: 7, 30: 0}),
        ("staircase 1..6 step 3 every 10s", 30, {0: 1, 10: 4, 20: 6}),
        ("staircase 6..1 step 5 every 1m", 120, {0: 6, 60: 1}),
        ("double 1..8 every 5s", 20, {0: 1, 5: 2, 10: 4, 15: 8, 20: 0}),
        ("double 1..6 every 5s", 20, {10: 4, 15: 6}),
        ("double 8..2 every 5s", 15, {0: 8, 5: 4, 10: 2}),
        ("burst 512 for 5s", 5, {0: 512, 5: 0}),
        ("spike 512 for 5s", 5, {4: 512}),
        ("sine 8..64 period 30s", None, {0: 8, 15: 64, 30: 8, 3015: 64}),
        ("sine 8..64 period 30s for 1m", 60, {7.5: 36, 45: 64, 60: 0}),
        (
            "ramp 1..256 over 60s, hold 20s, burst 512 for 5s",
            85,
            {0: 1, 60: 256, 79.9: 256, 80: 512, 85: 0},
        ),
        ("Ramp 1 .. 4 over 2m,HOLD 4", None, {120: 4, 1e5: 4}),
        ("sine 0..8 period 4s for 1s, hold 2s", 3, {1.5: 4}),
    ],
)
def test_level_over_time(text: str, duration: float | None, levels: dict[float, float]) -> None:
    shape = parse(text)
    assert shape.duration == duration
    for time, level in levels.items():
        assert shape.level(time) == pytest.approx(level, rel=1e-6), time
    assert shape.level(-0.001) == 0


@pytest.mark.parametrize("end", [0.0, 19.999])
def test_a_finite_shape_ends_and_stays_ended(end: float) -> None:
    shape = parse("hold 3 for 20s")
    assert shape.running(end)
    assert not shape.running(20)
    assert shape.level(1e9) == 0


def test_an_endless_shape_never_ends() -> None:
    assert parse("hold 3").running(1e9)


@pytest.mark.parametrize(
    ("text", "named", "example"),
    [
        ("", "empty piece", "ramp"),
        ("hold 5 for 2s,", "empty piece", "ramp"),
        ("ramp 1..2", "'ramp 1..2'", "ramp 1..256 over 60s"),
        ("hold 3 for 2s, ramp up", "'ramp up'", "ramp 1..256 over 60s"),
        ("hold 20s", "'hold 20s'", "hold 32 for 20s"),
        ("hold 5, hold 3 for 2s", "'hold 3 for 2s'", "hold 32 for 20s"),
        ("double 0..4 every 1s", "'double 0..4 every 1s'", "double 1..256 every 15s"),
        ("staircase 1..4 step 0 every 1s", "step of 0", "staircase"),
        ("wobble 3", "'wobble 3'", "pieces are hold, ramp"),
        ("hold 5 for 0s", "'hold 5 for 0s'", ""),
        ("hold 5 for 9999h", "at most 30 days", ""),
        ("hold 99999999", "99999999", ""),
        ("hold -3", "'hold -3'", "hold 32 for 20s"),
        ("hold nan", "'hold nan'", ""),
        ("hold \x1b[31m5 x", "'hold 5 x'", ""),
    ],
)
def test_what_cannot_be_read_is_named(text: str, named: str, example: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert named in caught.value.message
    assert example in caught.value.hint
    assert caught.value.message.isprintable()


@given(st.text(max_size=80) | st.from_regex(r"(hold|ramp|sine|double) [0-9.s ]{1,20}"))
def test_any_text_is_a_shape_or_a_usage_error(text: str) -> None:
    try:
        shape = parse(text)
    except UsageError as error:
        assert len(error.message) < 200
    else:
        assert 0 <= shape.level(1.0) <= MAX_LEVEL


@given(
    st.sampled_from(
        [
            "ramp {}..{} over 7s",
            "staircase {}..{} step 3 every 2s",
            "double {}..{} every 1s",
            "sine {}..{} period 3s for 5s",
        ]
    ),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.floats(0, 1, exclude_max=True),
)
def test_a_shape_stays_between_its_bounds(form: str, a: int, b: int, share: float) -> None:
    shape = parse(form.format(a, b))
    assert shape.duration is not None
    level = shape.level(share * shape.duration)
    assert min(a, b) - 1e-6 <= level <= max(a, b) + 1e-6


def test_durations() -> None:
    assert [parse_duration(t) for t in ("500ms", "20s", "2m", "1.5h")] == [0.5, 20, 120, 5400]
    for bad in ("20", "s", "20 s", "1d", ""):
        with pytest.raises(UsageError, match="not a duration"):
            parse_duration(bad)
    assert math.isfinite(parse_duration("1ms"))
