import random

from llmtop.loadgen.oversaturation import oversaturated, slope

Points = list[tuple[float, float]]


def line(rise: float, noise: float, seed: int, level: float = 10.0) -> Points:
    rng = random.Random(seed)
    return [(t / 2, level + rise * t / 2 + rng.gauss(0, noise)) for t in range(60)]


def test_the_slope_of_a_line_is_found_within_its_interval() -> None:
    found = slope(line(0.5, 1.0, 3))
    assert found is not None and found.low < 0.5 < found.high
    exact = slope(line(0.5, 0.0, 3))
    assert exact is not None and abs(exact.high - 0.5) < 1e-9
    assert slope([(0, 1.0)] * 20) is None
    assert slope(line(1, 0, 0)[:5]) is None


def test_both_must_grow() -> None:
    growing, flat = line(0.5, 1.0, 1), line(0.0, 1.0, 2)
    assert oversaturated(growing, growing)
    assert not oversaturated(growing, flat)
    assert not oversaturated(flat, growing)
    assert not oversaturated(growing, [])


def test_a_steady_load_is_seldom_called_oversaturated() -> None:
    calls = [oversaturated(line(0, 1, 2 * seed), line(0, 1, 2 * seed + 1)) for seed in range(400)]
    assert sum(calls) <= 4  # two one-sided 2.5 % together: one in 1600
