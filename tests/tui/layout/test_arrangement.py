from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.layout.arrangement import BESIDE, PAIRED, Facts, arrange
from llmtop.tui.view.view import LifecycleView

STAGES = st.sampled_from(list(LifecycleView))


@given(
    st.integers(1, 300), st.integers(1, 120), STAGES, st.integers(1, 12), st.integers(0, 8),
    st.integers(0, 20), st.booleans(), st.booleans(),
)  # fmt: skip
def test_panels_never_overlap_and_never_leave_the_screen(
    width: int,
    height: int,
    stage: LifecycleView,
    engines: int,
    gpus: int,
    options: int,
    editing: bool,
    speculates: bool,
) -> None:
    boxes = arrange(width, height, Facts(stage, engines, gpus, options, editing, speculates))
    taken: set[tuple[int, int]] = set()
    for name, (x, y, w, h) in boxes.items():
        assert w > 0 and h > 0, name
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height, name
        cells = {(a, b) for a in range(x, x + w) for b in range(y, y + h)}
        assert not cells & taken, name
        taken |= cells
    if width >= 60 and height >= 16 and stage is LifecycleView.RUNNING:
        assert len(taken) == width * height  # nothing is left unused


@given(st.integers(60, 300), st.integers(16, 120), st.integers(1, 9), st.booleans())
def test_state_pulse_kv_and_ttft_never_leave(
    width: int, height: int, engines: int, editing: bool
) -> None:
    boxes = arrange(width, height, Facts(engines=engines, editing=editing))
    assert {"state", "pulse", "kv", "ttft", "keys", "options"} <= set(boxes)
    assert boxes["state"] == (0, 0, width, 1)
    assert boxes["kv"].height >= 5 and boxes["ttft"].height >= 5
    assert boxes["kv"].width >= 30 and boxes["ttft"].width >= 30


def test_the_three_designs() -> None:
    small, normal, large = arrange(80, 24), arrange(120, 40), arrange(200, 60)
    assert set(small) == {
        "state", "pulse", "ttft", "kv", "tokens", "queue", "options", "load", "gpu", "events",
        "keys",
    }  # fmt: skip
    assert set(normal) == set(small) | {"token"}
    assert set(large) == set(small) | {"itl", "requests", "cost"}
    drafting = arrange(200, 60, Facts(speculates=True))
    assert set(drafting) == set(large) - {"requests"} | {"speculation"}


def test_what_leaves_first() -> None:
    assert set(arrange(120, 40)) - set(arrange(120, 37)) == {"token"}
    assert set(arrange(80, 24)) - set(arrange(80, 21)) == {"gpu"}
    assert set(arrange(80, 21)) - set(arrange(60, 16)) == {"events", "tokens", "queue"}


def test_too_small_leaves_the_state_and_a_word_why() -> None:
    assert set(arrange(59, 40)) == set(arrange(200, 15)) == {"state", "small"}


@given(st.integers(60, 300), st.integers(16, 120), st.integers(1, 9))
def test_a_tour_speaks_right_below_the_state(width: int, height: int, engines: int) -> None:
    boxes = arrange(width, height, Facts(engines=engines, captioned=True))
    assert (boxes["state"].y, boxes["caption"].y) == (0, 1)
    assert boxes["caption"].width == width
    assert boxes["kv"].height >= 5


def test_while_options_are_edited_the_charts_that_show_the_effect_stay() -> None:
    boxes = arrange(80, 24, Facts(options=6, editing=True))
    assert {"ttft", "kv", "tokens", "queue"} <= set(boxes)
    assert boxes["options"].width == 80
    assert boxes["options"].height >= 9


def test_a_start_and_an_end_take_the_place_of_the_charts() -> None:
    for stage in (LifecycleView.STARTING, LifecycleView.ENDED):
        boxes = arrange(120, 40, Facts(stage))
        assert "startup" in boxes and "ttft" not in boxes and "events" in boxes


@given(st.integers(100, 300), st.integers(32, 120), st.integers(2, 12))
def test_two_engines_side_by_side_have_the_same_room(width: int, height: int, engines: int) -> None:
    boxes = arrange(width, height, Facts(engines=engines, beside=True))
    assert {"pulse", f"{BESIDE}pulse", "engines", "load", "events", "keys"} <= set(boxes)
    taken: set[tuple[int, int]] = set()
    for name, (x, y, w, h) in boxes.items():
        assert w > 0 and h > 0 and x + w <= width and y + h <= height, name
        cells = {(a, b) for a in range(x, x + w) for b in range(y, y + h)}
        assert not cells & taken, name
        taken |= cells
    for name in PAIRED[:4]:
        one, other = boxes[name], boxes[BESIDE + name]
        assert (one.y, one.width, one.height) == (other.y, other.width, other.height)
        assert one.height >= 4


def test_side_by_side_gives_way_to_the_options_and_to_a_small_terminal() -> None:
    assert arrange(120, 40, Facts(engines=2, beside=True, editing=True)) == arrange(
        120, 40, Facts(engines=2, editing=True)
    )
    assert arrange(80, 24, Facts(engines=2, beside=True)) == arrange(80, 24, Facts(engines=2))
