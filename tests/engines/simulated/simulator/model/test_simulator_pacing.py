"""Steps in real time: due on an absolute schedule, and honest about being late."""

from __future__ import annotations

import pytest

from llmtop.engines.simulated.simulator.model.pacing import MOST_LAG_S, Pacer


class Host:
    """A clock, and a sleep that may oversleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.oversleep = 0.0
        self.warnings: list[str] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self.oversleep

    def pacer(self) -> Pacer:
        return Pacer(lambda: self.now, self.sleep, self.warnings.append)


async def test_a_late_step_is_made_up_for_and_does_not_drift() -> None:
    host = Host()
    pacer = host.pacer()
    host.oversleep = 0.001
    for _ in range(1000):
        await pacer.step(0.005)
    assert host.now == pytest.approx(100.0 + 1000 * 0.005, abs=0.0021)
    assert pacer.lag == pytest.approx(0.001)
    assert (pacer.lost, host.warnings) == (0.0, [])


async def test_a_host_that_cannot_keep_up_says_so_and_gives_the_debt_up() -> None:
    host = Host()
    pacer = host.pacer()
    host.oversleep = 0.02  # each step of 10 ms takes 20 ms at the least
    for _ in range(500):
        await pacer.step(0.01)
    assert pacer.lag >= MOST_LAG_S
    assert pacer.lost == pytest.approx(500 * 0.01 - MOST_LAG_S, abs=0.05)
    assert len(host.warnings) == 1  # ten seconds: not a line a step
    assert "too slow" in host.warnings[0]
    host.oversleep = 0.0
    for _ in range(100):
        await pacer.step(0.01)
    assert pacer.lag == pytest.approx(0.0, abs=1e-6)


async def test_idle_time_is_no_debt() -> None:
    host = Host()
    pacer = host.pacer()
    await pacer.step(0.01)
    host.now += 60.0
    pacer.restart()
    await pacer.step(0.01)
    assert (pacer.lag, pacer.lost) == (0.0, 0.0)
    assert host.now == pytest.approx(160.02)
