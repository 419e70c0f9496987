import random

import pytest

from llmtop.loadgen.statistics.wilson import ShareVerdict, bounds, judge


def test_the_interval_is_wilsons() -> None:
    # 8 of 10, two-sided 95 %: the example that statistics packages print.
    low, high = bounds(8, 10, 0.975)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert bounds(0, 0) == (0.0, 1.0)
    assert bounds(50, 50)[1] == 1.0
    assert bounds(0, 50)[0] == 0.0


@pytest.mark.parametrize(
    ("met", "n", "held"),
    [
        (52, 52, ShareVerdict.PASS),
        (51, 51, ShareVerdict.UNDECIDED),  # all in time, and yet too few to say 95 %
        (95, 100, ShareVerdict.UNDECIDED),
        (990, 1000, ShareVerdict.PASS),
        (930, 1000, ShareVerdict.FAIL),
        (0, 4, ShareVerdict.FAIL),
        (0, 0, ShareVerdict.UNDECIDED),
    ],
)
def test_few_requests_decide_nothing(met: int, n: int, held: ShareVerdict) -> None:
    assert judge(met, n, 0.95) is held


def test_a_wrong_verdict_comes_as_rarely_as_promised() -> None:
    rng = random.Random(1)
    # The worst case of each claim: just on the wrong side of the limit.
    passed = sum(
        judge(sum(rng.random() < 0.949 for _ in range(300)), 300, 0.95) is ShareVerdict.PASS
        for _ in range(1000)
    )
    failed = sum(
        judge(sum(rng.random() < 0.951 for _ in range(300)), 300, 0.95) is ShareVerdict.FAIL
        for _ in range(1000)
    )
    assert passed <= 70
    assert failed <= 70
