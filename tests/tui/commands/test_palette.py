"""The palette: what it offers, what of it is found, and what it does."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.events import Key, Paste
from textual.pilot import Pilot

from llmtop.config.file import load
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.palette import Entry, matching
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.log import LogScreen
from llmtop.tui.screens.palette import PaletteScreen
from llmtop.tui.screens.restart import RestartScreen
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZE = (80, 24)


def entry(title: str, note: str = "") -> Entry:
    return Entry(title, lambda: None, note=note)


def test_what_was_typed_is_found_best_first() -> None:
    entries = [
        entry("hold the load"),
        entry("the theme dark"),
        entry("theme light"),
        entry("back", note="theme of old"),
        entry("set max_num_seqs ="),
    ]
    assert [one.title for one in matching(entries, "Theme")] == [
        "theme light",
        "the theme dark",
        "back",
    ]
    assert [one.title for one in matching(entries, "num set")] == ["set max_num_seqs ="]
    assert matching(entries, "  ") == entries
    assert matching(entries, "nothing of the kind") == []


async def type_into(pilot: Pilot[None], text: str) -> None:
    names = {" ": "space", "=": "equals_sign", "_": "underscore", ".": "full_stop",
             "@": "at", ":": "colon"}  # fmt: skip
    await pilot.press(*(names.get(char, char) for char in text))


@pytest.mark.parametrize(
    ("typed", "call"),
    first(
        5,
        [
            ("burst", ("burst",)),
            ("set max_num_seqs = 64", ("set_option", "llama", "max_num_seqs", 64, False)),
            ("async", ("set_option", "llama", "async_scheduling", False, False)),
            ("set second max_num_seqs = 7", ("set_option", "second", "max_num_seqs", 7, False)),
            ("engine sec", ("select", "second")),
            ("load ramp 1..256 over 60s", ("load", Plan(shape="ramp 1..256 over 60s"), None)),
            ("load @knee", ("load", Plan(shape="double 1..64 every 5s"), None)),
            ("load hold 4 asking @chat", ("load", Plan(shape="hold 4"), Prompts((10, 20), (5, 5)))),
            (
                "asking @chat",
                ("load", Plan(shape="ramp 1..400 over 120s"), Prompts((10, 20), (5, 5))),
            ),
        ],
        2,
    ),
)
async def test_a_line_does_what_it_says(
    settle: Settle,
    make_app: Make,
    control: FakeControl,
    store: Store,
    make_engine: Callable[..., EngineTrack],
    tmp_path: Path,
    typed: str,
    call: tuple[object, ...],
) -> None:
    file = tmp_path / "llmtop.toml"
    file.write_text(
        '[shapes]\nknee = "double 1..64 every 5s"\n'
        '[prompts.chat]\nprompt_tokens = "10..20"\noutput_tokens = 5\n'
    )
    store.engines["second"] = make_engine("second", 8001)
    app = make_app(config=load(file))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("colon")
        await type_into(pilot, typed)
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert control.calls == [call]
        assert isinstance(app.screen, Dashboard)


async def test_a_value_is_typed_behind_the_option_that_was_chosen(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        await type_into(pilot, "batched")
        await pilot.pause()
        assert "is 8,192, live to 8,192" in screen_text(app)
        await pilot.press("enter")
        await type_into(pilot, "99999")
        await pilot.press("enter")  # is no answer: it is refused in the line itself
        await pilot.pause()
        assert "99999 is out of range" in screen_text(app) and control.calls == []
        await pilot.press("ctrl+w")
        await type_into(pilot, " 512")
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "max_num_batched_tokens", 512, False)]


async def test_an_option_that_needs_a_restart_asks(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        await type_into(pilot, "set gpu_memory_utilization = 0.5")
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert isinstance(app.screen, RestartScreen) and control.calls == []


async def test_any_flag_can_be_given_with_a_restart(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        await type_into(pilot, 'restart with "')
        await settle(pilot)
        assert "the quoting is not complete" in screen_text(app)
        await pilot.press("ctrl+w")
        await type_into(pilot, " eager")
        await settle(pilot)
        assert "flags begin with a dash" in screen_text(app)
        await pilot.press("ctrl+w")
        await type_into(pilot, " --enforce-eager --api-key hush --name 'a b'")
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert isinstance(app.screen, RestartScreen) and control.calls == []
        assert "--enforce-eager --api-key [hidden] --name" in screen_text(app)
        await pilot.press("y")
        await settle(pilot)
        flags = ("--enforce-eager", "--api-key", "hush", "--name", "a b")
        assert control.calls == [("restart", "llama", {}, flags, False)]


async def test_it_works_on_other_screens_too(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("l")
        await settle(pilot)
        await pilot.press("ctrl+p")
        await type_into(pilot, "a line up")
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert isinstance(app.screen, LogScreen) and "1 lines below" in screen_text(app)
        await pilot.press("ctrl+p")
        await type_into(pilot, "a short burst")
        await pilot.press("enter")
        await settle(pilot)
        await settle(pilot)
        assert control.calls == [("burst",)] and isinstance(app.screen, LogScreen)


async def test_a_theme_is_chosen_by_name(settle: Settle, make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        await type_into(pilot, "theme contrast")
        await pilot.press("enter")
        await settle(pilot)
        assert app.theme == "llmtop-contrast"


async def test_a_picture_is_kept_and_never_written_over(
    settle: Settle, make_app: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, state = tmp_path / "here", tmp_path / "state"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for _ in range(2):
            await pilot.press("ctrl+p")
            await type_into(pilot, "picture")
            await pilot.press("enter")
            await settle(pilot)
            await settle(pilot)
        pictures = sorted(here.glob("llmtop-*.svg"))
        assert len(pictures) == 2
        text = pictures[0].read_text()
        assert text.startswith("<svg") and "TTFT" in text and "entries" not in text


def test_a_picture_goes_where_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmtop.tui.terminal import picture

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr("pathlib.Path.cwd", lambda: gone / "not there")
    path = picture.save("<svg/>", 0.0)
    assert path.parent == tmp_path / "state/llmtop/pictures" and path.read_text() == "<svg/>"


async def test_what_is_typed_in_a_burst_is_typed_and_no_key_of_the_load(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        for key in ("colon", "b", "0", "X"):
            app.post_message(Key(key, ":" if key == "colon" else key))
        await settle(pilot)
        assert "> b0X_" in screen_text(app)
        assert control.calls == []


async def test_a_hostile_name_is_text_and_a_paste_is_one_line(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    store: Store,
    make_engine: Callable[..., EngineTrack],
) -> None:
    evil = "\x1b[31m[red]x\x07\u202e"
    store.engines[evil] = make_engine(evil, 8001)
    first = store.engines["llama"].options[0]
    spec = replace(first.spec, name=f"{evil}opt", summary=evil)
    store.engines["llama"].options = (replace(first, spec=spec),)
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        await type_into(pilot, "[red]")
        await pilot.pause()
        text = screen_text(app)
        assert "engine [red]x" in text and "set [red]xopt" in text
        sent = "".join(strip.text for strip in app.screen._compositor.render_strips())
        assert "\x1b" not in sent and "\x07" not in sent and "\u202e" not in sent
        app.screen.post_message(Paste("\x1b[2Jone\ntwo"))
        await settle(pilot)
        assert "> [red]one_" in screen_text(app)


async def test_without_a_match_enter_does_nothing(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app(ascii=True)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p", *"zzzz", "enter", "tab", "down", "up")
        await settle(pilot)
        assert "no entry matches" in screen_text(app)
        assert isinstance(app.screen, PaletteScreen) and control.calls == []
        assert screen_text(app).isascii()
