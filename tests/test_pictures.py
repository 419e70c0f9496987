"""Pictures of the other screens. After a wanted change: pytest with --snapshot-update."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop.engines.records import EngineStatus, State, Step
from llmtop.tui.app import LlmtopApp
from llmtop.tui.store import Store
from llmtop.values import replace

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
KEYS = {"options": ("o", "enter", "6"), "help": ("question_mark",), "palette": ("ctrl+p", *"max")}
DIALOGS = {"restart": ("R",), "stop": ("K",), "quit": ("q",)}
Make = Callable[..., LlmtopApp]


def begin(store: Store, now: float) -> None:
    """The engine is in the middle of its start, which its last one is known of."""
    track = store.engines["llama"]
    assert track.status is not None
    steps = (Step("weights", 1.49, 1.6), Step("compile", 11.24, 17.2), Step("CUDA graphs", 3.7))
    record = replace(track.status.record, started_at=now - 40)
    track.status = EngineStatus(record, State.STARTING, now - 40, "CUDA graphs", steps)
    track.log_tail = "Capturing CUDA graphs (decode, FULL): 67%"


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", [*KEYS, "startup"])
def test_screen(
    snap_compare: Callable[..., bool],
    make_app: Make,
    store: Store,
    now: float,
    screen: str,
    size: str,
    theme: str,
) -> None:
    if screen == "startup":
        begin(store, now)
    press = KEYS.get(screen, ())
    assert snap_compare(make_app(theme=theme), press=press, terminal_size=SIZES[size])


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", DIALOGS)
def test_dialog(
    snap_compare: Callable[..., bool], make_app: Make, screen: str, size: str, theme: str
) -> None:
    app = make_app(theme=theme)
    assert snap_compare(app, press=DIALOGS[screen], terminal_size=SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_an_engine_that_does_not_answer(
    snap_compare: Callable[..., bool], make_app: Make, store: Store, now: float, size: str
) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    track.status = replace(track.status, state=State.UNRESPONSIVE, since=now - 12)
    track.stale_since, track.trouble, store.load = now - 14, "no answer within 2 s", None
    store.missing["http://10.0.0.7:8000"] = "nothing answers"
    assert snap_compare(make_app(), terminal_size=SIZES[size])


@pytest.mark.parametrize("screen", [*KEYS, *DIALOGS, "dashboard", "startup"])
def test_without_colour(
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    make_app: Make,
    store: Store,
    now: float,
    screen: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    if screen == "startup":
        begin(store, now)
    press = {**KEYS, **DIALOGS}.get(screen, ())
    assert snap_compare(make_app(), press=press, terminal_size=SIZES["80x24"])


@pytest.mark.parametrize("screen", [*KEYS, *DIALOGS, "startup"])
def test_in_ascii(
    snap_compare: Callable[..., bool], make_app: Make, store: Store, now: float, screen: str
) -> None:
    if screen == "startup":
        begin(store, now)
    press = {**KEYS, **DIALOGS}.get(screen, ())
    assert snap_compare(make_app(ascii=True), press=press, terminal_size=SIZES["80x24"])


@pytest.mark.parametrize("screen", [*KEYS, *DIALOGS, "dashboard"])
def test_on_a_slow_line(snap_compare: Callable[..., bool], make_app: Make, screen: str) -> None:
    press = {**KEYS, **DIALOGS}.get(screen, ())
    app = make_app(low_bandwidth=True)
    assert snap_compare(app, press=press, terminal_size=SIZES["120x40"])


SHOWN = {
    "small": "test_snapshots/test_dashboard[80x24-dark]",
    "large": "test_snapshots/test_dashboard[200x60-dark]",
    "beside": "test_snapshots/test_dashboard_in_other_ways[beside]",
    "startup": "test_pictures/test_screen[startup-120x40-dark]",
    "stop": "test_pictures/test_dialog[stop-80x24-dark]",
    "stale": "test_pictures/test_an_engine_that_does_not_answer[120x40]",
    "palette": "test_pictures/test_screen[palette-120x40-dark]",
    "help": "test_pictures/test_screen[help-200x60-dark]",
    "log": "test_log_pictures/test_log[120x40-dark]",
    "compare": "test_finding_snapshots/test_screen[compare-120x40-dark]",
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_docs_show_the_screen_as_it_is(name: str) -> None:
    tests = Path(__file__).parent
    picture = tests.parent / "docs" / "pictures" / f"{name}.svg"
    now = tests / "__snapshots__" / f"{SHOWN[name]}.raw"
    assert picture.read_text() == now.read_text(), f"copy {now} to {picture}"
