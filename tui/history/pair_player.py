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
    """Writes two recordings into one store, with the selected engine of each.

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
        self._shown_events: tuple[object, ...] = ()
        self.names = tuple(
            f"{sign} {title}"[:24] for sign, title in zip(SIGNS, titles, strict=True)
        )
        self.store.selected = self.names[0]
        self._show()

    @property
    def recording(self) -> Recording:
        """The longer recording."""
        return self._lead.recording

    @property
    def typed(self) -> str | None:
        """The time that is being typed; None if none is."""
        return self._lead.typed

    @typed.setter
    def typed(self, text: str | None) -> None:
        self._lead.typed = text

    def now(self) -> float:
        """The time of both, in unix seconds."""
        return self._lead.now()

    def advance(self) -> None:
        """Apply the facts of both recordings up to now."""
        self._lead.advance()
        self._show()

    def toggle(self) -> None:
        """Pause or play."""
        self._lead.toggle()
        self._show()

    def change_speed(self, by: int) -> None:
        """Select the next higher speed (1) or lower speed (-1)."""
        self._lead.change_speed(by)

    def skip(self, seconds: float) -> None:
        """Move forward or, if negative, back by some seconds."""
        self.seek(self.now() + seconds)

    def step(self) -> None:
        """Pause and show the next sample."""
        self._lead.step()
        self._show()

    def seek(self, moment: float) -> None:
        """Show both recordings at a time, in unix seconds."""
        for player in self._players:
            player.seek(moment)
        self._show()

    def jump(self, by: int) -> None:
        """Jump to the next mark or event of either recording (1), or to the previous one (-1)."""
        recording = self.recording
        self.seek(next_place(self.position.places, self.now(), recording, by))

    @property
    def position(self) -> ReplayPosition:
        """The position of both."""
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
        """The recorded log of one of the two engines, up to now."""
        for mine, player in zip(self.names, self._players, strict=True):
            if mine == name:
                return tuple(player.playback.logs.get(player.store.selected or "", ()))
        return ()

    def select(self, name: str) -> None:
        """Select one of the two engines."""
        self.store.selected = name
        self._show()

    def stop(self) -> None:
        """Stop the surveys of both files."""
        for player in self._players:
            player.stop()

    def _show(self) -> None:
        """Write the engines of both into the store."""
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
        counts = tuple(len(one.store.events) for one in self._players)
        newest = tuple(one.store.events[-1] if one.store.events else None for one in self._players)
        if (counts, newest) == self._shown_events:
            return
        self._shown_events = counts, newest
        found: list[Event] = []
        for sign, player in zip(SIGNS, self._players, strict=True):
            found += [
                replace(event, text=f"{sign}: {event.text}", parts=())
                for event in player.store.events
            ]
        self.store.events.clear()
        self.store.events.extend(sorted(found, key=lambda event: event.time))
