"""Plays two recordings side by side: one clock, one store, the same axes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from llmtop.analysis.events import Event
from llmtop.history.recording_reader import Recording
from llmtop.tui.history.player import Player, next_place
from llmtop.tui.store.store import Store
from llmtop.tui.view.view import ReplayPosition
from llmtop.values import replace

SIGNS = ("A", "B")


class PairPlayer:
    """Feeds one store from two recordings, with the selected engine of each.

    Both begin at the same time of one clock (``ShiftedRecording``). The shorter one follows the
    longer one. titles: their names. steady: monotonic seconds.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        titles: Sequence[str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = Store()
        self.titles = tuple(titles)
        self._players = tuple(
            Player(recording, title, steady=steady)
            for recording, title in zip(recordings, titles, strict=True)
        )
        self._lead = max(self._players, key=lambda one: one.recording.duration_s)
        self._told: tuple[object, ...] = ()
        self.names = tuple(
            f"{sign} {title}"[:24] for sign, title in zip(SIGNS, titles, strict=True)
        )
        self.store.selected = self.names[0]
        self._show()

    @property
    def recording(self) -> Recording:
        """The longer one."""
        return self._lead.recording

    @property
    def typed(self) -> str | None:
        """A moment that is being typed."""
        return self._lead.typed

    @typed.setter
    def typed(self, text: str | None) -> None:
        self._lead.typed = text

    def now(self) -> float:
        """The moment of both, unix seconds of the first one."""
        return self._lead.now()

    def advance(self) -> None:
        """Make so what has happened until now, in both."""
        self._lead.advance()
        self._show()

    def toggle(self) -> None:
        """Pause, or play."""
        self._lead.toggle()
        self._show()

    def change_speed(self, by: int) -> None:
        """A step faster (1) or slower (-1)."""
        self._lead.change_speed(by)

    def skip(self, seconds: float) -> None:
        """Some seconds on or back."""
        self.seek(self.now() + seconds)

    def step(self) -> None:
        """Pause, and show the next sample."""
        self._lead.step()
        self._show()

    def seek(self, moment: float) -> None:
        """Show a moment of both."""
        for player in self._players:
            player.seek(moment)
        self._show()

    def jump(self, by: int) -> None:
        """To the next mark or event of either (1), or the one before (-1)."""
        recording = self.recording
        self.seek(next_place(self.position.places, self.now(), recording, by))

    @property
    def position(self) -> ReplayPosition:
        """Where both are."""
        found = self._lead.position
        places = sorted({at for one in self._players for at in one.position.places})
        remarks = [one.remark for one in self._players if one.remark]
        return replace(
            found,
            title=" ".join(SIGNS),
            places=tuple(places),
            remark=remarks[0] if remarks else "",
            pair=True,
        )

    def lines(self, name: str) -> tuple[str, ...]:
        """The log of one of the two, as far as it was recorded."""
        for mine, player in zip(self.names, self._players, strict=True):
            if mine == name:
                return tuple(player.playback.logs.get(player.store.selected or "", ()))
        return ()

    def select(self, name: str) -> None:
        """The one that the screen is about."""
        self.store.selected = name
        self._show()

    def stop(self) -> None:
        """Look through the files no longer."""
        for player in self._players:
            player.stop()

    def _show(self) -> None:
        """Put the engines of both into the one store."""
        store = self.store
        for player in self._players:
            if player is not self._lead:
                player.follow(self.now())
        store.engines.clear()
        store.loads.clear()
        for name, player in zip(self.names, self._players, strict=True):
            track = player.store.engine
            if track is None:
                continue
            track.name = name
            store.engines[name] = track
            if player.store.load is not None:
                store.loads[name] = player.store.load
            if name == store.selected:
                store.gpus, store.gpu_note = player.store.gpus, player.store.gpu_note
        self._show_events()

    def _show_events(self) -> None:
        told = tuple(len(one.store.events) for one in self._players)
        newest = tuple(one.store.events[-1] if one.store.events else None for one in self._players)
        if (told, newest) == self._told:
            return
        self._told = told, newest
        found: list[Event] = []
        for sign, player in zip(SIGNS, self._players, strict=True):
            found += [
                replace(event, text=f"{sign}: {event.text}", parts=())
                for event in player.store.events
            ]
        self.store.events.clear()
        self.store.events.extend(sorted(found, key=lambda event: event.time))
