"""A restart, or several servers behind one address: told by what the readings themselves say."""

from __future__ import annotations

import random

import pytest

from llmtop.engines.core.conditions import Name
from llmtop.engines.core.samples import Counter, EngineSample, Reading
from llmtop.engines.metrics.window import Window

NOW = 1_800_000_000.0


def reading(at: float, start: float | None, tokens: float, running: int = 3) -> Reading:
    return Reading(
        time=NOW + at,
        elapsed=at,
        running=running,
        waiting=0,
        process_start=None if start is None else NOW + start,
        counters={Counter.OUTPUT_TOKENS: tokens},
    )


def looks(*readings: Reading) -> list[EngineSample]:
    window = Window()
    return [window.add(one) for one in readings]


def several(sample: EngineSample) -> bool:
    return any(one.name is Name.SEVERAL_SERVERS for one in sample.conditions)


@pytest.mark.parametrize("starts", [(-900.0, -823.0), (-823.0, -900.0), (None, None), (-9.0, -9.0)])
def test_replicas_by_turns_are_several_servers_and_no_restart(
    starts: tuple[float | None, float | None],
) -> None:
    found = looks(
        *(
            reading(t, starts[0], 1000 + 10 * t) if t % 2 else reading(t, starts[1], 9e5 + 30 * t)
            for t in range(30)
        )
    )
    assert not any(sample.restarted for sample in found)
    assert all(several(sample) for sample in found[3:])


@pytest.mark.parametrize("seed", range(20))
def test_replicas_at_random_too(seed: int) -> None:
    chance = random.Random(seed)
    found = looks(
        *(
            reading(t, -900.0 + 70 * which, 1000 + 1e6 * which + 50 * t)
            for t, which in ((t, chance.randrange(3)) for t in range(60))
        )
    )
    assert several(found[-1])
    first = next(at for at, sample in enumerate(found) if several(sample))
    assert not any(sample.restarted for sample in found[first:])


def test_a_restart_is_one_once_and_several_servers_never() -> None:
    before = [reading(t, -900.0, 1000 + 50 * t) for t in range(20)]
    after = [reading(50 + t, 40.0, 50.0 * t) for t in range(40)]
    found = looks(*before, *after)
    assert [at for at, sample in enumerate(found) if sample.restarted] == [20]
    assert not any(several(sample) for sample in found)


def test_a_restart_of_an_engine_that_tells_no_start() -> None:
    before = [reading(t, None, 1000 + 50 * t) for t in range(20)]
    after = [reading(50 + t, None, 50.0 * t) for t in range(40)]
    found = looks(*before, *after)
    assert [at for at, sample in enumerate(found) if sample.restarted] == [20]
    assert not any(several(sample) for sample in found)


def test_a_restart_on_a_machine_whose_clock_is_behind_is_known_a_little_later() -> None:
    before = [reading(t, -900.0, 1000 + 50 * t) for t in range(20)]
    after = [reading(50 + t, -400.0, 50.0 * t) for t in range(40)]
    found = looks(*before, *after)
    assert len([sample for sample in found if sample.restarted]) == 1
    assert any(sample.restarted for sample in found[20:26])
    assert not any(several(sample) for sample in found)


def test_one_server_alone_is_one_again_after_a_while() -> None:
    turns = [reading(t, -900.0 + 50 * (t % 2), 1000 + 50 * t) for t in range(10)]
    alone = [reading(10 + t, -900.0, 2000 + 50 * t) for t in range(90)]
    found = looks(*turns, *alone)
    assert several(found[9]) and not several(found[-1])
    assert not any(sample.restarted for sample in found)
    assert found[-1].output_tokens_per_s == pytest.approx(50)
