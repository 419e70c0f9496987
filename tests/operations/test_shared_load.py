"""A second screen shows the load of the first, its marks and its events."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llmtop.analysis.marks import Mark
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.operations import shared_load
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.sources.shared_load import SharedLoadSource
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.view.view import View
from llmtop.values import replace
from tests.plain_rows import plain


def as_another(folder: Path) -> None:
    """The file as a process of another number has written it."""
    found = shared_load._decode((folder / shared_load.FILE).read_bytes())
    shared_load.write(folder, replace(found, pid=os.getpid() + 1))


async def test_the_second_screen_shows_level_marks_and_events(
    tmp_path: Path, store: Store, make_engine: Callable[..., EngineTrack], now: float
) -> None:
    clock = [now]
    store.engines["llama"].marks.append(Mark(now - 3, "load 12", load=True))
    store.events.append(Event(now - 3, "info", "load: hold 12"))
    first = SharedLoadSource(store, lambda: clock[0], lambda name: tmp_path, lambda: clock[0])
    await first.sample()
    written = tmp_path / shared_load.FILE
    assert written.stat().st_mode & 0o777 == 0o600

    other = Store(engines={"llama": make_engine("llama")}, selected="llama")
    second = SharedLoadSource(other, lambda: clock[0], lambda name: tmp_path, lambda: clock[0])
    await second.sample()
    assert other.engines["llama"].shared_load is None  # one's own file says nothing new
    as_another(tmp_path)
    for _ in range(3):  # each event and mark is told once
        clock[0] += 1.0
        await second.sample()
    track = other.engines["llama"]
    assert [mark.label for mark in track.marks] == ["load 12"]
    assert [event.text for event in other.events] == [
        f"load: hold 12 (by llmtop {os.getpid() + 1})"
    ]
    text = "\n".join(plain(LoadPanel(id="load").draw(View(other, clock[0]), 60, 8)))
    assert "load of another llmtop" in text and "asked 358 streams" in text

    clock[0] += 10.0  # it has ended without a word
    await second.sample()
    assert track.shared_load is None


async def test_what_is_over_is_taken_away_and_what_is_broken_is_nothing(
    tmp_path: Path, store: Store, make_load: Callable[..., LoadSnapshot], now: float
) -> None:
    clock = [now]
    source = SharedLoadSource(store, lambda: clock[0], lambda name: tmp_path, lambda: clock[0])
    await source.sample()
    assert (tmp_path / shared_load.FILE).exists()
    store.load, clock[0] = make_load(running=False, in_flight=0), now + 2
    await source.sample()
    assert not (tmp_path / shared_load.FILE).exists()
    for text in (b"", b"{}", b"\xff" * 100, b"[" * 70_000):
        (tmp_path / shared_load.FILE).write_bytes(text)
        assert shared_load.read(tmp_path, now) is None
