"""Pictures of the other screens. After a wanted change: pytest with --snapshot-update."""

from collections.abc import Callable

import pytest

from llmtop.engines.core.records import EngineStatus, State, Step
from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import Store
from llmtop.values import replace
from tests.pictures import PICTURES, SHOWN, picture, snapshot
from tests.tiers import first

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


@pytest.mark.parametrize("theme", first(1, ["dark", "light"]))
@pytest.mark.parametrize("size", first(2, SIZES))
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


@pytest.mark.parametrize("theme", first(1, ["dark", "light"]))
@pytest.mark.parametrize("size", first(2, SIZES))
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


@pytest.mark.parametrize("screen", first(2, ["dashboard", *KEYS, *DIALOGS, "startup"]))
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


@pytest.mark.more
@pytest.mark.parametrize("screen", [*KEYS, *DIALOGS, "startup"])
def test_in_ascii(
    snap_compare: Callable[..., bool], make_app: Make, store: Store, now: float, screen: str
) -> None:
    if screen == "startup":
        begin(store, now)
    press = {**KEYS, **DIALOGS}.get(screen, ())
    assert snap_compare(make_app(ascii=True), press=press, terminal_size=SIZES["80x24"])


@pytest.mark.more
@pytest.mark.parametrize("screen", [*KEYS, *DIALOGS, "dashboard"])
def test_on_a_slow_line(snap_compare: Callable[..., bool], make_app: Make, screen: str) -> None:
    press = {**KEYS, **DIALOGS}.get(screen, ())
    app = make_app(low_bandwidth=True)
    assert snap_compare(app, press=press, terminal_size=SIZES["120x40"])


def test_each_picture_of_the_docs_is_one_that_make_pictures_draws() -> None:
    assert {one.stem for one in PICTURES.glob("*.svg")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_the_docs_show_the_screen_as_it_is(name: str) -> None:
    assert picture(name).read_text() == snapshot(name).read_text(), "stale: run `make pictures`"
