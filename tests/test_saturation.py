from collections.abc import Sequence

from llmtop.tui.panels.saturation import saturation, verdict
from llmtop.tui.panels.view import View
from llmtop.tui.store import Store

Halves = tuple[Sequence[float | None], Sequence[float | None]]


def halves(before: float | None, after: float | None) -> Halves:
    return [before] * 15, [after] * 15


def test_ttft_up_and_tokens_flat_while_more_is_asked_is_past_the_knee() -> None:
    assert (
        verdict(halves(0.1, 0.18), halves(6300, 6600), halves(128, 220), halves(0, 0))
        == "past knee"
    )


def test_a_growing_queue_at_the_cap_counts_as_more_asked() -> None:
    assert (
        verdict(halves(0.4, 1.2), halves(5200, 5150), halves(64, 64), halves(10, 60)) == "past knee"
    )


def test_linear_growth_is_not_saturation() -> None:
    assert verdict(halves(0.03, 0.04), halves(1300, 3800), halves(8, 32), halves(0, 0)) == ""


def test_a_jump_of_ttft_at_a_steady_load_is_not_called_saturation() -> None:
    assert verdict(halves(0.1, 0.5), halves(6000, 6000), halves(128, 128), halves(0, 0)) == ""


def test_a_lasting_queue_without_growth_is_queueing() -> None:
    assert verdict(halves(1, 1), halves(5e3, 5e3), halves(64, 64), halves(9, 9)) == "queueing"


def test_a_queue_that_was_seen_once_is_nothing() -> None:
    waiting: Halves = [0.0] * 15, [0.0] * 13 + [3.0, 4.0]
    assert verdict(halves(1, 1), halves(5e3, 5e3), halves(64, 64), waiting) == ""


def test_unknown_numbers_say_nothing() -> None:
    none = halves(None, None)
    assert verdict(none, none, none, none) == ""
    assert verdict(([], []), ([], []), ([], []), ([], [])) == ""


def test_the_ramp_of_the_fixture_is_past_its_knee_at_the_end(store: Store, now: float) -> None:
    assert saturation(View(store, now)) == "past knee"
    assert saturation(View(store, now - 100)) == ""
    assert saturation(View(Store(), now)) == ""
