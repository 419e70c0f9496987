import pytest

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.loadgen.workload.schedule import Schedule


def schedule(shape: str, loop: Loop = Loop.CLOSED) -> Schedule:
    return Schedule(Plan(loop, shape), start_ns=0, since_ns=0)


def at(seconds: float) -> int:
    return int(seconds * NS)


def test_more_and_less_hold_a_step_away_from_the_present_level() -> None:
    ramp = schedule("ramp 0..100 over 100s")
    assert ramp.more(at(40)).level(at(70)) == 50
    assert ramp.less(at(40)).level(at(70)) == 32
    assert ramp.more(at(40)).more(at(41)).less(at(42)).level(at(80)) == 50  # 40, 50, 63, 50


def test_steps_are_at_least_one_and_never_below_zero() -> None:
    assert schedule("1").more(0).level(0) == 2
    assert schedule("1").less(0).level(0) == 0
    assert schedule("1").less(0).less(0).level(0) == 0
    assert schedule("1").less(0).more(0).level(0) == 1


def test_a_rate_need_not_be_whole() -> None:
    assert schedule("hold 10", Loop.OPEN).more(0).level(0) == 12.5
    assert schedule("hold 10", Loop.CLOSED).more(0).level(0) == 13


def test_hold_freezes_and_resume_goes_on_from_there() -> None:
    ramp = schedule("ramp 0..100 over 100s")
    held = ramp.hold(at(20)).hold(at(50))
    assert held.level(at(500)) == 20
    assert held.running(at(500))
    resumed = held.resume(at(60))
    assert resumed.level(at(60)) == pytest.approx(20)
    assert resumed.level(at(70)) == pytest.approx(30)
    assert not resumed.running(at(140))


def test_a_burst_lies_on_top_and_the_shape_waits() -> None:
    ramp = schedule("ramp 0..100 over 100s").burst(500, 5, at(20))
    assert ramp.level(at(24.9)) == 500
    assert ramp.level(at(25)) == pytest.approx(20)
    assert ramp.level(at(35)) == pytest.approx(30)


def test_a_burst_in_a_burst_replaces_it() -> None:
    ramp = schedule("ramp 0..100 over 100s").burst(500, 10, at(20)).burst(700, 10, at(25))
    assert ramp.level(at(34.9)) == 700
    assert ramp.level(at(35)) == pytest.approx(20)


def test_a_burst_over_a_hold_returns_to_the_hold() -> None:
    held = schedule("ramp 0..100 over 100s").hold(at(20)).burst(500, 5, at(30))
    assert held.level(at(31)) == 500
    assert held.level(at(36)) == 20
    assert held.resume(at(40)).level(at(50)) == pytest.approx(30)


def test_resume_under_a_burst_lets_the_shape_wait_for_its_end() -> None:
    ramp = schedule("ramp 0..100 over 100s").hold(at(20)).burst(500, 10, at(30)).resume(at(35))
    assert ramp.level(at(39)) == 500
    assert ramp.level(at(50)) == pytest.approx(30)


def test_hold_during_a_burst_keeps_the_burst_and_resume_the_shape() -> None:
    held = schedule("ramp 0..100 over 100s").burst(500, 10, at(20)).hold(at(24))
    assert held.level(at(400)) == 500
    assert held.resume(at(400)).level(at(400)) == pytest.approx(20)


def test_stop_ends_it_and_more_begins_again_at_one() -> None:
    stopped = schedule("hold 32").stop(cut=False, now_ns=at(3))
    assert stopped.level(at(4)) == 0
    assert not stopped.running(at(4))
    again = stopped.more(at(9))
    assert again.level(at(9)) == 1
    assert again.running(at(9))
    assert stopped.resume(at(9)).level(at(10)) == 32


def test_an_ended_shape_can_be_burst_or_held() -> None:
    ended = schedule("hold 3 for 5s")
    assert not ended.running(at(6))
    assert ended.burst(9, 2, at(6)).running(at(7))
    assert not ended.burst(9, 2, at(6)).running(at(8))
    assert ended.more(at(6)).level(at(7)) == 1


def test_every_change_has_a_number_of_its_own() -> None:
    first = schedule("hold 3")
    chain = [first, first.more(1), first.more(1).hold(2), first.more(1).hold(2).stop(True, 3)]
    assert [c.number for c in chain] == [0, 1, 2, 3]


def test_switching_the_loop_holds_the_level_given() -> None:
    switched = schedule("hold 32").switch(Loop.OPEN, 7.5, at(1))
    assert switched.plan.loop is Loop.OPEN
    assert switched.level(at(1)) == 7.5


def test_after_an_interruption_the_shape_goes_on_from_where_it_was() -> None:
    cut = schedule("ramp 0..100 over 100s").interrupt(at(20))
    assert cut.cut and not cut.running(at(30)) and cut.level(at(30)) == 0
    again = cut.go_on(at(60))
    assert again.running(at(60)) and not again.cut
    assert again.level(at(70)) == pytest.approx(30)


def test_after_an_interruption_a_held_level_is_held_and_its_shape_remembers() -> None:
    held = schedule("ramp 0..100 over 100s").hold(at(20)).hold_at(7, at(25))
    again = held.interrupt(at(30)).go_on(at(50))
    assert again.level(at(400)) == 7
    assert again.resume(at(400)).level(at(410)) == pytest.approx(30)


def test_an_interruption_ends_a_burst() -> None:
    again = schedule("hold 10").burst(500, 60, at(1)).interrupt(at(2)).go_on(at(3))
    assert again.level(at(4)) == 10
