"""Plays a recording: its clock, its speed, and jumps in it."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from threading import Thread
from typing import NamedTuple

from llmtop.history.fact_codec import RecordingError
from llmtop.history.facts import EventFact, Fact, MarkFact, SummaryFact
from llmtop.history.recording_reader import Recording
from llmtop.tui.history.playback import Minutes, Playback
from llmtop.tui.store.series import CAPACITY
from llmtop.tui.store.store import Store
from llmtop.tui.view.view import ReplayPosition

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SAME_S = 1.0  # marks this close together are one place to jump to
MOST_PLACES = 2000
STEPS_S = 60.0  # of steps to load before a moment: for the charts, and for the fit of a model
AT_ONCE = 240  # members, four hours: a longer recording is surveyed on a thread


class Player:
    """Writes a recording into ``store``. It begins at the start of the recording, and plays.

    title: name of the recording. steady: monotonic seconds. ``now`` is the clock of the screen.
    """

    def __init__(
        self,
        recording: Recording,
        title: str,
        store: Store | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recording = recording
        self.title = title
        self.playback = Playback(store if store is not None else Store())
        self.playing = True
        self.remark = recording.remark
        self.typed: str | None = None  # a time that is being typed
        self._steady = steady
        self._speed = SPEEDS.index(1.0)
        self._base, self._anchor = recording.began, steady()
        self._facts: Iterator[Fact] = iter(())
        self._next: Fact | None = None
        self._first = recording.began  # of the charts; before it only summaries are known
        self._survey = Survey(Minutes({}), ())
        self._found: Survey | None = None  # result of the survey thread
        self._thread: Thread | None = None
        self._closed = False
        self._start_survey()
        self.seek(recording.began)

    @property
    def store(self) -> Store:
        """The store that the recording is written into."""
        return self.playback.store

    @property
    def speed(self) -> float:
        """Seconds of the recording in one second."""
        return SPEEDS[self._speed]

    def now(self) -> float:
        """The current time in the recording, unix seconds."""
        if not self.playing:
            return self._base
        passed = (self._steady() - self._anchor) * self.speed
        return min(self._base + passed, self.recording.ended)

    def advance(self) -> None:
        """Apply the facts up to now; at the end of the recording, pause."""
        self._take_survey()
        now = self.now()
        self._apply_until(now)
        if now >= self.recording.ended and self.playing:
            self._pause_at(now)

    def toggle(self) -> None:
        """Pause or play; at the end, play from the beginning."""
        if self.playing:
            self._pause_at(self.now())
        elif self._base >= self.recording.ended:
            self.seek(self.recording.began)
            self._play()
        else:
            self._play()

    def change_speed(self, by: int) -> None:
        """Select the next higher speed (1) or lower speed (-1)."""
        now = self.now()
        self._speed = min(len(SPEEDS) - 1, max(0, self._speed + by))
        self._base, self._anchor = now, self._steady()

    def skip(self, seconds: float) -> None:
        """Move forward or, if negative, back by some seconds."""
        self.seek(self.now() + seconds)

    def step(self) -> None:
        """Pause and show the next sample."""
        self._pause_at(self.now())
        self.skip(self.recording.head.interval)

    def seek(self, moment: float) -> None:
        """Show the state at a time, in unix seconds; the charts hold the 20 minutes before it."""
        recording = self.recording
        moment = min(max(moment, recording.began), recording.ended)
        self._base, self._anchor = moment, self._steady()
        self.playback.reset()
        first = recording.start_before(moment - CAPACITY)
        self._facts = recording.facts(first, steps_since=moment - STEPS_S)
        self._next = None
        self._apply_until(moment)
        self._first = first
        self.playback.begin_day_with(self._survey.minutes, first)

    def jump(self, by: int) -> None:
        """Jump to the next mark or event (1), or to the previous one (-1)."""
        self.seek(next_place(self._survey.places, self.now(), self.recording, by))

    def follow(self, moment: float) -> None:
        """Show the state at a time of another player's clock, in unix seconds; pause this one."""
        self._take_survey()
        self.playing = False
        if moment < self._base:
            self.seek(moment)
            return
        self._base = min(moment, self.recording.ended)
        self._apply_until(self._base)

    @property
    def position(self) -> ReplayPosition:
        """The position in the recording."""
        recording = self.recording
        at = self.now() - recording.began
        length = recording.duration_s
        places = self._survey.places
        return ReplayPosition(
            self.title, self.playing, self.speed, at, length, places, self.remark, self.typed
        )

    def lines(self, engine: str) -> tuple[str, ...]:
        """An engine's log up to now."""
        return tuple(self.playback.logs.get(engine, ()))

    def stop(self) -> None:
        """Stop the survey of the file."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Close the file."""
        self.stop()
        self.recording.close()

    def _pause_at(self, now: float) -> None:
        self.playing, self._base = False, now

    def _play(self) -> None:
        self.playing, self._anchor = True, self._steady()

    def _apply_until(self, moment: float) -> None:
        try:
            while True:
                fact = self._next if self._next is not None else next(self._facts, None)
                self._next = fact
                if fact is None or fact.time > moment:
                    return
                self.playback.apply(fact)
                self._next = None
        except RecordingError as error:
            # Damaged data ends the replay here; the state shown stays.
            self.remark, self._facts, self._next = error.message, iter(()), None

    def _start_survey(self) -> None:
        """Collect the minutes' summaries and the places to jump to, from the members' beginnings.

        A long recording is surveyed on a thread, so that it opens at once.
        """
        last: list[Fact] = []
        recording = self.recording
        try:
            first = recording.start_before(recording.ended)
            last = list(recording.facts(first, kinds={"mark", "event"}))
        except RecordingError as error:
            self.remark = error.message
        if recording.member_count <= AT_ONCE:
            self._survey = survey(recording, last, lambda: False)
        else:
            self._thread = Thread(target=self._survey_on_thread, args=(last,), daemon=True)
            self._thread.start()

    def _survey_on_thread(self, last: list[Fact]) -> None:
        self._found = survey(self.recording, last, lambda: self._closed)

    def _take_survey(self) -> None:
        if self._found is not None:
            self._survey, self._found = self._found, None
            self.playback.begin_day_with(self._survey.minutes, self._first)


def next_place(places: Sequence[float], now: float, recording: Recording, by: int) -> float:
    """The time of the place after ``now`` (1) or before it (-1), in unix seconds.

    Without such a place: the end or the beginning of the recording. places: seconds from the
    beginning, ascending.
    """
    at = now - recording.began
    number = bisect_right(places, at + 0.01) if by > 0 else bisect_left(places, at - SAME_S) - 1
    if 0 <= number < len(places):
        return recording.began + places[number]
    return recording.ended if by > 0 else recording.began


class Survey(NamedTuple):
    """Summary of a recording. places: times of marks and events, seconds from its beginning."""

    minutes: Minutes
    places: tuple[float, ...]


def survey(recording: Recording, last: list[Fact], ended: Callable[[], bool]) -> Survey:
    """Read the beginning of each member.

    last: marks and events of the last member. ended: whether to stop early.
    """
    minutes, found = Minutes({}), set[float]()
    for fact in chain(recording.beginnings(), last):
        if ended():
            break
        if isinstance(fact, SummaryFact):
            minutes.add(fact)
        elif isinstance(fact, MarkFact):
            found.add(fact.mark.time)
        elif isinstance(fact, EventFact) and fact.event.level in ("error", "warning", "state"):
            found.add(fact.event.time)
    places: list[float] = []
    for moment in sorted(found):
        at = moment - recording.began
        if 0 < at <= recording.duration_s and (not places or at - places[-1] > SAME_S):
            places.append(at)
    return Survey(minutes, tuple(places[:MOST_PLACES]))
