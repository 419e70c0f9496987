"""The thread that reads the keyboard: it hears every key, and ends when it is told to."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread

import pytest
from textual.events import Key
from textual.message import Message

from llmtop.tui.driver import QuietDriver

LONG_S = 30.0


class Keyboard(QuietDriver):
    """The driver without a screen, on a terminal of the test's own."""

    def __init__(self, terminal: int) -> None:
        self.fileno = terminal
        self.exit_event = Event()
        self.heard: SimpleQueue[Message] = SimpleQueue()
        self._debug = False
        self._mouse = False
        self.begin_input()
        self._key_thread: Thread | None = Thread(target=self.run_input_thread)
        self._key_thread.start()

    def process_message(self, message: Message) -> None:
        self.heard.put(message)

    def key(self) -> str:
        event = self.heard.get(timeout=LONG_S)
        assert isinstance(event, Key)
        return event.key


@contextmanager
def keyboard() -> Iterator[tuple[Keyboard, int]]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    reading = Keyboard(theirs)
    try:
        yield reading, ours
    finally:
        reading.disable_input()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"a", ["a"]),
        ("é".encode(), ["é"]),
        (b"\x1b[A", ["up"]),
        (b"\x1b", ["escape"]),  # which only time tells from the beginning of another key
        (b"qo+", ["q", "o", "plus"]),
    ],
)
def test_every_key_is_heard(typed: bytes, keys: list[str]) -> None:
    with keyboard() as (reading, ours):
        os.write(ours, typed)
        assert [reading.key() for _ in keys] == keys


def test_a_key_that_comes_in_pieces_is_one() -> None:
    with keyboard() as (reading, ours):
        os.write(ours, b"\xc3")
        os.write(ours, b"\xa9")
        os.write(ours, b"x")
        assert reading.key() == "é"
        assert reading.key() == "x"


def test_it_ends_when_it_is_told_to_and_can_begin_again() -> None:
    with keyboard() as (reading, ours):
        os.write(ours, b"a")
        assert reading.key() == "a"
        first = reading._key_thread
        assert first is not None and first.is_alive()
        reading.disable_input()
        assert not first.is_alive()
        reading.begin_input()
        reading._key_thread = Thread(target=reading.run_input_thread)
        reading._key_thread.start()
        os.write(ours, b"b")
        assert reading.key() == "b"
