import math

import pytest

from llmtop.loadgen.statistics.student import normal_quantile, t_probability, t_quantile


# From the printed tables of any textbook (to their digits).
@pytest.mark.parametrize(
    ("probability", "freedom", "t"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 7, 2.36462),
        (0.95, 10, 1.81246),
        (0.995, 5, 4.03214),
        (0.975, 30, 2.04227),
        (0.999, 3, 10.2145),
        (0.975, 1000, 1.96234),
    ],
)
def test_t_is_that_of_the_tables(probability: float, freedom: int, t: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(t, rel=2e-5)
    assert t_quantile(1 - probability, freedom) == pytest.approx(-t, rel=2e-5)
    assert t_probability(t, freedom) == pytest.approx(probability, abs=1e-6)


def test_one_degree_of_freedom_is_the_cauchy_distribution() -> None:
    for t in (-30.0, -1.0, 0.0, 0.3, 2.0, 1000.0):
        assert t_probability(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert t_quantile(0.975, 1e6) == pytest.approx(normal_quantile(0.975), rel=1e-5)
    assert normal_quantile(0.975) == pytest.approx(1.959963985)


def test_what_has_no_answer_is_an_error() -> None:
    for probability, freedom in ((0.0, 3), (1.0, 3), (0.5, 0)):
        with pytest.raises(ValueError):
            t_quantile(probability, freedom)
