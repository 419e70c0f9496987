"""Every key on every screen, by the table that they are made from."""

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Struct
from textual.binding import Binding
from textual.dom import DOMNode
from textual.pilot import Pilot

from llmtop.config.key_names import parse_keys, short_name
from llmtop.config.key_table import BY_ID, COMMANDS, Place
from llmtop.config.keymap import Keymap, key_faults
from llmtop.tui.app import LlmtopApp
from llmtop.tui.fleet.screen import FleetScreen
from llmtop.tui.replay.screen import ReplayDashboard
from llmtop.tui.screens.boxes.chooser import BoxesScreen
from llmtop.tui.screens.compare import CompareScreen
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.help import HelpScreen
from llmtop.tui.screens.inside.confirm import AbortScreen, ChangeScreen
from llmtop.tui.screens.inside.hold import EndHoldScreen, HoldScreen
from llmtop.tui.screens.inside.requests import RequestsScreen
from llmtop.tui.screens.inside.steps import StepsScreen
from llmtop.tui.screens.inside.why import WhyScreen
from llmtop.tui.screens.log import LogScreen
from llmtop.tui.screens.palette import PaletteScreen
from llmtop.tui.screens.quit import QuitScreen
from llmtop.tui.screens.restart import RestartScreen
from llmtop.tui.screens.saturation import SaturationScreen
from llmtop.tui.screens.slo.tune import TuneScreen
from llmtop.tui.screens.stop import StopScreen
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.finding_states import comparing, searching
from tests.folders import ROOT
from tests.inside_states import HELD, inside
from tests.tiers import first
from tests.tune_states import BEST, tuning

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)
SCREENS: tuple[type[DOMNode], ...] = (
    Dashboard, HelpScreen, LogScreen, PaletteScreen, QuitScreen, RestartScreen, StopScreen,
    SaturationScreen, CompareScreen, FleetScreen, WhyScreen, StepsScreen, RequestsScreen,
    BoxesScreen, ChangeScreen, AbortScreen, HoldScreen, EndHoldScreen, TuneScreen,
)  # fmt: skip
INSIDE = ("why", "steps", "requests", "change", "abort")  # begin the names of those about steps
EXPERIMENTS = {  # which are about one that there is
    "experiment.form", "experiment.stop", "experiment.back", "saturation.ghosts",
    "saturation.back", "compare.back", "tune.use", "tune.back",
}  # fmt: skip
LOWER = ("o", "enter", "6")


class Case(Struct, frozen=True):
    """Keys before, and what the command's own key then brings about.

    calls: what the control was asked for; asked: the name of the only call. shows, hides: on the
    screen after. on: which screen it is then. done: the app has ended.
    """

    before: tuple[str, ...] = ()
    calls: tuple[tuple[object, ...], ...] | None = None
    shows: str = ""
    hides: str = ""
    on: type | None = None
    done: bool = False
    asked: str = ""


L = ("l",)
HUNT = ("l", "slash", *"line 4", "enter")
SELECT = (("select", "second"),)
CASES: dict[str, Case] = {
    "load.more": Case(calls=(("more",),)),
    "load.less": Case(calls=(("less",),)),
    "load.hold": Case(calls=(("hold",),)),
    "load.burst": Case(calls=(("burst",),)),
    "load.loop": Case(calls=(("switch_loop",),)),
    "load.stop": Case(calls=(("stop_load",),)),
    "load.again": Case(calls=(("start_again",),)),
    "load.cut": Case(calls=(("cut_load",),)),
    "options": Case(shows="choose  enter change  esc back"),
    "engine.restart": Case(shows="with the options that it was started with", on=RestartScreen),
    "engine.stop": Case(shows="leave it running", on=StopScreen),
    "engine.hold": Case(calls=(), on=HoldScreen, shows="status 503"),
    "engine.next": Case(calls=SELECT),
    "engine.before": Case(calls=SELECT),
    "engine.beside": Case(hides="to change ─╮"),
    "saturation": Case(on=SaturationScreen, shows="max streams"),
    "compare": Case(on=CompareScreen, shows="seconds a run"),
    "tune": Case(on=TuneScreen, shows="may change"),
    "experiment.start": Case(("s",), asked="start_search"),
    "experiment.form": Case(("s",), shows="max streams"),
    "experiment.stop": Case(("s",), asked="stop_experiment"),
    "experiment.back": Case(("s",), on=Dashboard),
    "saturation.ghosts": Case(("s",), shows="earlier curves: newest"),
    "saturation.back": Case(("s",), on=Dashboard),
    "compare.back": Case(("c",), on=Dashboard),
    "tune.use": Case(
        ("T",), calls=tuple(("set_option", "llama", *one, False) for one in BEST.items())
    ),
    "tune.back": Case(("T",), on=Dashboard),
    "why": Case(on=WhyScreen, shows="batch: 16 of 16 running"),
    "why.change": Case(("y",), calls=(), on=ChangeScreen),
    "why.steps": Case(("y",), on=StepsScreen),
    "why.requests": Case(("y",), on=RequestsScreen),
    "why.back": Case(("y",), on=Dashboard),
    "steps": Case(on=StepsScreen, shows="tokens per step"),
    "steps.why": Case(("e",), on=WhyScreen),
    "steps.back": Case(("e",), on=Dashboard),
    "requests": Case(on=RequestsScreen, shows="cmpl-0011"),
    "requests.up": Case(("r", "down", "down"), shows="▸ cmpl-0001"),
    "requests.down": Case(("r",), shows="▸ cmpl-0001"),
    "requests.age": Case(("r", "k"), shows="sorted by age"),
    "requests.kv": Case(("r",), shows="sorted by KV blocks"),
    "requests.tokens": Case(("r",), shows="sorted by output tokens"),
    "requests.wait": Case(("r",), shows="sorted by wait"),
    "requests.filter": Case(("r",), shows="filter: _"),
    "requests.details": Case(("r",), shows="waited in the queue"),
    "requests.abort": Case(("r",), calls=(), on=AbortScreen, shows="cmpl-0000"),
    "requests.back": Case(("r",), on=Dashboard),
    "change.yes": Case(
        ("y", "enter"), (("set_option", "llama", "max_num_seqs", 24, False),), on=WhyScreen
    ),
    "change.no": Case(("y", "enter"), calls=(), on=WhyScreen),
    "abort.yes": Case(("r", "A"), (("abort", "llama", ("cmpl-0000",)),), on=RequestsScreen),
    "abort.no": Case(("r", "A"), calls=(), on=RequestsScreen),
    "hold.yes": Case(("H",), (("start_hold", "llama", "ttft=1s,tpot=50ms"),), on=Dashboard),
    "hold.no": Case(("H",), calls=(), on=Dashboard),
    "hold.end": Case(("H",), (("end_hold", "llama"),), on=Dashboard),
    "hold.stay": Case(("H",), calls=(), on=Dashboard),
    "log": Case(on=LogScreen, shows="line 99"),
    "palette": Case(on=PaletteScreen, shows="entries"),
    "theme": Case(),
    "mouse": Case(shows="mouse off"),
    "chart.left": Case(shows=" n="),
    "chart.right": Case(("comma", "comma"), shows=" n="),
    "chart.back": Case(shows=" AGO"),
    "chart.on": Case(("less_than_sign",), hides=" AGO"),
    "chart.wider": Case(shows="╰ 3"),
    "chart.narrower": Case(("z",), hides="╰ 3"),
    "chart.freeze": Case(shows="FROZEN 0s"),
    "chart.enlarge": Case(hides="KV cache"),
    "chart.now": Case(("F", "z", "comma"), hides="FROZEN"),
    "record": Case(calls=(("record",),)),
    "help": Case(on=HelpScreen, shows="The load"),
    "suspend": Case(),
    "quit": Case(on=QuitScreen, shows="stay"),
    "quit.now": Case(before=L, on=QuitScreen, shows="stay"),
    "options.up": Case(("o", "down"), shows="what max_num_seqs limits"),
    "options.down": Case(("o",), shows="what max_num_batched_tokens limits"),
    "options.change": Case(("o",), shows="was 256"),
    "options.evict": Case(LOWER, shows="evict running requests: yes"),
    "options.leave": Case(("o",), hides="what max_num_seqs limits"),
    "log.up": Case(L, shows="1 lines below"),
    "log.down": Case((*L, "up", "up"), shows="1 lines below"),
    "log.page_up": Case(L, shows="36 lines below"),
    "log.page_down": Case((*L, "home"), shows="26 lines below"),
    "log.first": Case(L, shows="│ line 0 "),
    "log.last": Case((*L, "home"), shows="following", hides="│ line 0 "),
    "log.left": Case((*L, "right", "right"), shows="from column 17"),
    "log.right": Case(L, shows="from column 17"),
    "log.follow": Case(L, shows="not following"),
    "log.level": Case(L, shows="warnings and errors", hides="line 99"),
    "log.error": Case(L, shows="▸ERROR it broke"),
    "log.search": Case(L, shows="search: _"),
    "log.next": Case((*HUNT, "home"), shows="2 of 11"),
    "log.previous": Case((*HUNT, "N"), shows="10 of 11"),
    "log.back": Case(L, on=Dashboard),
    "help.up": Case(("question_mark", "down", "down", "down"), shows="│ +  =  "),
    "help.down": Case(("question_mark",), shows="│ The load"),
    "help.page_up": Case(("question_mark", "pagedown"), shows="The load"),
    "help.page_down": Case(("question_mark",), hides="The load"),
    "help.first": Case(("question_mark", "end"), shows="The load"),
    "help.last": Case(("question_mark",), hides="more lines"),
    "help.back": Case(("question_mark",), on=Dashboard),
    "palette.up": Case(("ctrl+p", "down", "down"), shows="▸ less load"),
    "palette.down": Case(("ctrl+p",), shows="▸ less load"),
    "palette.run": Case(("ctrl+p", *"burst"), calls=(("burst",),), on=Dashboard),
    "palette.take": Case(("ctrl+p", *"theme li"), shows="> theme light_"),
    "palette.back": Case(("ctrl+p",), on=Dashboard),
    "boxes": Case(on=BoxesScreen, shows="[x] events"),
    "boxes.up": Case(("B", "down", "down"), shows="▸ [x] tokens/s"),
    "boxes.down": Case(("B",), shows="▸ [x] tokens/s"),
    "boxes.switch": Case(("B",), shows="[ ] TTFT"),
    "boxes.all": Case(("B", "space"), shows="[x] TTFT"),
    "boxes.back": Case(("B",), on=Dashboard),
    "quit.leave": Case(("q",), calls=(("quit", False),), done=True),
    "quit.stay": Case(("q",), calls=(), on=Dashboard),
    "quit.stop": Case(("q",), calls=(("quit", True),), done=True),
    "stop.yes": Case(("K",), calls=(("stop_engine", "llama"),), on=Dashboard),
    "stop.no": Case(("K",), calls=(), on=Dashboard),
    "restart.yes": Case(("R",), calls=(("restart", "llama", {}, False),), on=Dashboard),
    "restart.rolling": Case(("R",), calls=(("restart", "llama", {}, True),), on=Dashboard),
    "restart.no": Case(("R",), calls=(), on=Dashboard),
}  # fmt: skip


@pytest.fixture
def control() -> FakeControl:
    lines = [f"line {n} of an engine that has {'much ' * 40}to say" for n in range(100)]
    lines[50] = "ERROR it broke"
    return FakeControl(lines)


def simulate(track: EngineTrack) -> None:
    """There is room for a second one of it, so that a rolling restart is offered."""
    assert track.status is not None
    record = replace(track.status.record, simulated=True)
    track.status = replace(track.status, record=record)


# These are other apps: tests/tui/test_fleet.py, tests/tui/test_replay.py.
ELSEWHERE = (Place.FLEET, Place.REPLAY)
HERE = [command.id for command in COMMANDS if command.place not in ELSEWHERE]
EVERYWHERE = {Place.LOAD, Place.ENGINES, Place.SCREEN, Place.CHARTS}


def of_each_place(most: int) -> list[object]:
    """The keys of the dashboard and the first ones of every other screen, then all others."""
    before: Counter[Place] = Counter()
    kept: list[str] = []
    for name in HERE:
        place = BY_ID[name].place
        before[place] += 1
        if place in EVERYWHERE or before[place] <= most:
            kept.append(name)
    return first(len(kept), [*kept, *(name for name in HERE if name not in kept)])


@pytest.mark.parametrize("name", of_each_place(1))
async def test_a_key_does_what_the_table_says(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    control: FakeControl,
    store: Store,
    make_engine: Callable[..., EngineTrack],
    monkeypatch: pytest.MonkeyPatch,
    now: float,
    name: str,
) -> None:
    # The first key of each; that the others are bound to the same is a test of the table.
    case, key = CASES[name], BY_ID[name].keys[0]
    store.engines["second"] = make_engine("second", 8001)
    simulate(store.engines["llama"])
    if name in EXPERIMENTS:
        store.search = searching(store.events[0].time, over=name != "experiment.stop")
        store.comparison = comparing(store.events[0].time)
        store.tune = tuning(store.events[0].time)
    if name.partition(".")[0] in INSIDE:
        inside(store, control, now)
    if name in ("hold.end", "hold.stay"):
        store.engines["llama"].hold = HELD
    suspended: list[object] = []
    monkeypatch.setattr(LlmtopApp, "action_suspend_process", lambda self: suspended.append(1))
    app = make_app(wall=lambda: now)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*case.before)
        await settle(pilot)
        theme = app.theme
        await pilot.press(key)
        await settle(pilot)
        if case.done:
            assert control.calls == list(case.calls or ())
            return
        await pilot.pause()
        text = screen_text(app)
        assert case.shows in text
        assert not case.hides or (
            case.hides not in text.splitlines()[1:] and case.hides not in text
        )
        assert case.on is None or isinstance(app.screen, case.on)
        if case.calls is not None:
            assert control.calls == list(case.calls)
        assert not case.asked or [call[0] for call in control.calls] == [case.asked]
        assert (app.theme != theme) == (name == "theme")
        assert bool(suspended) == (name == "suspend")


@pytest.mark.parametrize(
    "before", first(2, ["", "ctrl+p", "q", "R", "K", "l", "question_mark", "o"])
)
async def test_ctrl_z_suspends_on_every_screen(
    settle: Settle, make_app: Make, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    suspended: list[object] = []
    monkeypatch.setattr(LlmtopApp, "action_suspend_process", lambda self: suspended.append(1))
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*([before] if before else []))
        await settle(pilot)
        here = app.screen
        await pilot.press("ctrl+z")
        await settle(pilot)
        assert suspended == [1] and app.screen is here


def test_no_command_is_without_a_case_and_no_binding_without_a_command() -> None:
    assert set(CASES) == set(HERE)
    bound: set[str] = set()
    kinds: tuple[type[DOMNode], ...] = (LlmtopApp, ReplayDashboard, *SCREENS)
    for kind in kinds:
        for binding in kind.BINDINGS:
            assert isinstance(binding, Binding) and binding.id is not None, kind
            assert binding.key == ",".join(BY_ID[binding.id].keys)
            bound.add(binding.id)
    by_panel = {command.id for command in COMMANDS if command.place is Place.OPTIONS}
    assert bound | by_panel == set(BY_ID)


def test_the_table_has_no_key_twice() -> None:
    assert list(key_faults({})) == []


@pytest.mark.parametrize(
    ("text", "keys", "shown"),
    [
        ("plus, w", ("plus", "w"), ["+", "w"]),
        ("+,:,/,?", ("plus", "colon", "slash", "question_mark"), ["+", ":", "/", "?"]),
        ("comma, W, f5,ctrl+w", ("comma", "W", "f5", "ctrl+w"), [",", "W", "f5", "ctrl+w"]),
        ("escape,pageup,<", ("escape", "pageup", "less_than_sign"), ["esc", "pgup", "<"]),
    ],
)
def test_keys_are_written_and_read_as_people_do(
    text: str, keys: tuple[str, ...], shown: list[str]
) -> None:
    assert parse_keys(text) == keys
    assert [short_name(key) for key in keys] == shown


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"load.mor": "w"}, "the screen has no such command: did you mean load.more?"),
        ({"load.more": "b"}, "'b' is already the key of load.burst: give load.burst another key"),
        ({"load.more": "t"}, "'t' is already the key of theme: give theme another key"),
        (
            {"load.more": "ctrl+c"},
            "'ctrl+c' is already the key of quit.now: give quit.now another key",
        ),
        ({"quit.now": "up"}, "'up' is already the key of options.up: give options.up another key"),
        ({"load.more": "hyperspace"}, "'hyperspace' is not a key"),
        ({"load.more": "ctrl+ctrl+w"}, "'ctrl+ctrl+w' is not a key"),
        ({"load.more": " , "}, "a command needs a key"),
        ({"palette.up": "w"}, "'w' types a character there, so it cannot start a command"),
        (
            {"quit.now": "ctrl+c,w"},
            "'w' types a character on some screens, but must work on all",
        ),
    ],
)
def test_other_keys_that_cannot_be_meant(chosen: dict[str, str], words: str) -> None:
    found = [f"{said}: {hint}" for _, said, hint in key_faults(chosen)]
    assert any(one.startswith(words) for one in found), found


def test_keys_may_be_swapped() -> None:
    assert list(key_faults({"load.more": "minus", "load.less": "plus,equals_sign"})) == []


async def test_other_keys_work_and_are_shown_everywhere(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    keys = Keymap(
        {
            "load.more": "w", "load.less": "s", "load.stop": "f5", "options": "p", "help": "h",
            "options.evict": "x", "options.down": "d,down", "log.back": "ctrl+l", "palette": "f2",
            "load.burst": "t", "theme": "b",
        }
    )  # fmt: skip
    app = make_app(keys=keys)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("w", "s", "f5", "plus", "minus", "0", "t")
        await settle(pilot)
        assert control.calls == [("more",), ("less",), ("stop_load",), ("burst",)]
        text = screen_text(app)
        for words in ("w more", "s less", "f5 stop", "t burst", "p to change", "h help",
                      "f2 palette", "b theme"):  # fmt: skip
            assert words in text
        await pilot.press("p", "d", "up", "enter", "6")
        await pilot.pause()
        assert "x evict running requests" in screen_text(app)
        await pilot.press("escape", "escape", "h")
        await pilot.pause()
        assert f"\n│ {'w':<18} more load" in screen_text(app)
        await pilot.press("escape", "l")
        await settle(pilot)
        assert "ctrl+l back" in screen_text(app)
        await pilot.press("escape", "ctrl+l")
        await settle(pilot)
        assert isinstance(app.screen, Dashboard)


async def test_read_only_has_no_key_that_changes_something(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app(readonly=True)
    changing = [c for c in COMMANDS if c.changes and c.place in (Place.LOAD, Place.ENGINES)]
    assert {"load.cut", "engine.stop", "engine.restart"} < {c.id for c in changing}
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press(*(key for command in changing for key in command.keys))
        await settle(pilot)
        assert control.calls == [] and isinstance(app.screen, Dashboard)
        assert "K stop" not in screen_text(app) and "R restart" not in screen_text(app)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "stop the engine" not in screen_text(app) and "The load" not in screen_text(app)
        await pilot.press("escape", "ctrl+p")
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, PaletteScreen)
        titles = {entry.title for entry in screen._find("")}
        assert not titles & {command.words for command in COMMANDS if command.changes}
        assert not any(title.startswith(("set ", "load ")) for title in titles)
        for typed in ("set max_num_seqs = 64", "load hold 4"):
            assert screen._find(typed) == []


async def test_an_engine_is_stopped_by_its_capital_only_and_named(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("K")
        await settle(pilot)
        text = screen_text(app)
        for words in ("llama", "pid 4242", "port 8000", "GPU memory", "358 requests are in it"):
            assert words in text
        await pilot.press("enter", "y", "k")  # none of them is the answer
        await settle(pilot)
        assert control.calls == [] and isinstance(app.screen, StopScreen)
        await pilot.press("Y")
        await settle(pilot)
        assert control.calls == [("stop_engine", "llama")]


async def test_an_engine_that_is_not_ours_is_neither_stopped_nor_restarted(
    settle: Settle, make_app: Make, control: FakeControl, store: Store
) -> None:
    store.engines["llama"].owned = False
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for key, verb in (("K", "stop"), ("R", "restart")):
            await pilot.press(key)
            await settle(pilot)
            assert isinstance(app.screen, Dashboard)
            said = [note.message for note in app._notifications]
            assert f"llmtop did not start llama, so it does not {verb} it" in said
        assert control.calls == []


@pytest.mark.parametrize("size", [(60, 16), (120, 40)])
async def test_every_box_fits(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, size: tuple[int, int]
) -> None:
    simulate(store.engines["llama"])
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for key in ("q", "K", "R", "ctrl+p", "l", "question_mark"):
            await pilot.press(key)
            await settle(pilot)
            assert not isinstance(app.screen, Dashboard)
            lines = screen_text(app).splitlines()
            assert len(lines) <= size[1] and all(len(line) <= size[0] for line in lines)
            assert lines[0][0] + lines[-1][-1] == "╭╯" and len(set(map(len, lines))) == 1
            await pilot.press("escape")
            await settle(pilot)


def test_the_documents_name_every_key_and_every_command() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
    keys, configuration = pages["keys"] + pages["screens"], pages["configuration"]
    for command in COMMANDS:
        for key in command.keys:
            assert f"`{short_name(key)}`" in keys, command.id
        shown = " ".join(short_name(key) for key in command.keys)
        assert f"`{command.id}` {shown}" in configuration
