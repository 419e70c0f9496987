"""Boxes can be hidden: others get their room, and the choice is remembered."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from llmtop.tui.app import LlmtopApp
from llmtop.tui.layout.arrangement import BESIDE, PAIRED, Boxes, Facts, arrange
from llmtop.tui.layout.hidden_box_file import FILE, HiddenBoxFile
from llmtop.tui.layout.hidden_boxes import HIDEABLE, without

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
HIDDEN = st.frozensets(st.sampled_from(sorted(HIDEABLE)))


def cells(boxes: Boxes) -> list[tuple[int, int]]:
    return [
        (a, b)
        for x, y, width, height in boxes.values()
        for a in range(x, x + width)
        for b in range(y, y + height)
    ]


@given(
    st.integers(60, 220), st.integers(16, 70), HIDDEN, st.booleans(), st.booleans(), st.booleans(),
    st.integers(0, 8),
)  # fmt: skip
def test_the_rest_fills_the_screen(
    width: int,
    height: int,
    hidden: frozenset[str],
    speculates: bool,
    steps: bool,
    beside: bool,
    gpus: int,
) -> None:
    facts = Facts(engines=2, gpus=gpus, speculates=speculates, steps=steps, beside=beside)
    before = arrange(width, height, facts)
    boxes = without(before, hidden)
    taken = cells(boxes)
    assert len(taken) == len(set(taken)), "boxes overlap"
    assert len(taken) == len(cells(before)), "room is left"
    if set(before) & set(HIDEABLE) - hidden:
        assert not {name.removeprefix(BESIDE) for name in boxes} & hidden


def test_nothing_hidden_changes_nothing() -> None:
    assert without(arrange(120, 40), ()) == arrange(120, 40)


def test_the_last_box_stays() -> None:
    assert without(arrange(120, 40), set(HIDEABLE)) == arrange(120, 40)


def test_a_hidden_chart_is_hidden_of_both_engines() -> None:
    boxes = without(arrange(120, 40, Facts(engines=2, beside=True)), {PAIRED[0]})
    assert PAIRED[0] not in boxes and BESIDE + PAIRED[0] not in boxes


def test_the_choice_is_remembered_in_a_private_file(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert HiddenBoxFile(folder).change(frozenset({"gpu", "kv"})) == ""
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    again = HiddenBoxFile(folder)
    assert again.read() == "" and again.hidden == {"gpu", "kv"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "damaged"),
        (b'{"version": 1, "hidden": 3}', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"version": 2, "hidden": ["gpu"]}', "newer llmtop"),
        (b" " * 20_000, "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_costs_one_line(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / FILE).write_bytes(text)
    memory = HiddenBoxFile(tmp_path)
    told = memory.read()
    assert words in told and "\n" not in told and memory.hidden == frozenset()


def test_a_newer_file_is_not_written_over(tmp_path: Path) -> None:
    newer = b'{"version": 2, "hidden": ["gpu"]}'
    (tmp_path / FILE).write_bytes(newer)
    memory = HiddenBoxFile(tmp_path)
    memory.read()
    memory.change(frozenset({"kv"}))
    assert memory.hidden == {"kv"} and (tmp_path / FILE).read_bytes() == newer


def test_unknown_boxes_of_the_file_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"version": 1, "hidden": ["gpu", "state", "weather"]}')
    memory = HiddenBoxFile(tmp_path)
    assert memory.read() == "" and memory.hidden == {"gpu"}


async def test_a_hidden_box_is_gone_also_in_the_next_screen(
    make_app: Make, settle: Settle, screen_text: Text, tmp_path: Path
) -> None:
    app = make_app()
    app.state_folder = tmp_path
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "KV cache" in screen_text(app)
        await pilot.press("B", "down", "down", "space", "escape")
        await settle(pilot)
        assert "KV cache" not in screen_text(app) and "TTFT" in screen_text(app)
        await pilot.press("o")  # the options get the keyboard as ever
        await settle(pilot)
        assert app.dashboard.editing
        await pilot.press("escape")
    again = make_app()
    again.state_folder = tmp_path
    async with again.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "KV cache" not in screen_text(again)
        await pilot.press("B", "a", "escape")
        await settle(pilot)
        assert "KV cache" in screen_text(again)


async def test_hidden_options_are_shown_while_they_are_changed(
    make_app: Make, settle: Settle, screen_text: Text, tmp_path: Path
) -> None:
    HiddenBoxFile(tmp_path).change(frozenset({"options"}))
    app = make_app()
    app.state_folder = tmp_path
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "max_num_seqs  " not in screen_text(app)
        await pilot.press("o")
        await settle(pilot)
        assert app.dashboard.editing and "max_num_seqs  " in screen_text(app)
        await pilot.press("escape")
        await settle(pilot)
        assert "max_num_seqs  " not in screen_text(app)


async def test_a_damaged_file_is_an_event(make_app: Make, settle: Settle, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"{")
    app = make_app()
    app.state_folder = tmp_path
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "is damaged" in app.store.events[-1].text
