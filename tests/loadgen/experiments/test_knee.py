import random

import pytest

from llmtop.loadgen.experiments.knee import Knee, Point, find


def curve(*pairs: tuple[int, float], error: float | None = 0.01) -> Knee:
    found = find([Point(level, throughput, error) for level, throughput in pairs])
    assert found is not None
    return found


# vLLM 0.26, an 8B model on one H200: the recorded curve.
H200 = ((1, 196), (8, 1323), (32, 3818), (64, 5231), (128, 6230), (256, 6618))


def test_the_knee_of_a_recorded_curve() -> None:
    knee = curve(*H200)
    assert (knee.level, knee.low, knee.high) == (128, 64, 128)
    assert knee.best == pytest.approx(6618)
    assert not knee.open_end
    assert knee.cliff is None


def test_a_curve_that_still_rises_says_so() -> None:
    assert curve(*H200[:4]).open_end
    assert curve((4, 700)).open_end


def test_the_error_bar_grows_with_the_noise() -> None:
    pairs = ((32, 5550), (40, 6840), (46, 7850), (48, 8080), (64, 8764), (128, 8762))
    still, noisy = curve(*pairs, error=0.001), curve(*pairs, error=0.03)
    assert (still.low, still.high) == (40, 48)
    assert (noisy.low, noisy.high) == (40, 64)


def test_a_noisy_plateau_is_averaged() -> None:
    rng = random.Random(5)
    plateau = [(level, 1000 * (1 + rng.gauss(0, 0.03))) for level in range(64, 128, 4)]
    knee = curve((16, 300), (32, 600), (48, 890), *plateau, error=0.03)
    assert knee.best == pytest.approx(1000, rel=0.02)


def test_throughput_that_falls_off_is_a_cliff_and_no_plateau() -> None:
    # A KV cache that is too small: beyond 64 streams preemptions eat the throughput.
    knee = curve((8, 1240), (32, 4388), (64, 4505), (128, 3100), (256, 2500))
    assert (knee.cliff, knee.level) == (128, 32)
    assert knee.cliff_share == pytest.approx(3100 / 4505)
    assert knee.best == pytest.approx(4505, rel=0.02)


def test_nothing_measured_has_no_knee() -> None:
    assert find([]) is None
    assert find([Point(4, 0.0)]) is None
