"""The thread that reads the keyboard: it hears every key, and ends when it is told to."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.events import Key, Paste
from textual.message import Message

from llmtop.tui.keys.pasting import BEGIN, END, KEPT, Pastes
from llmtop.tui.terminal.driver import QuietDriver

LONG_S = 30.0


class Keyboard(QuietDriver):
    """The driver without a screen, on a terminal of the test's own."""

    def __init__(self, terminal: int) -> None:
        self.fileno = terminal
        self.exit_event = Event()
        self.heard: SimpleQueue[Message] = SimpleQueue()
        self.behind = 0
        self._debug = False
        self._mouse = False
        self.begin_input()
        self._key_thread: Thread | None = Thread(target=self.run_input_thread)
        self._key_thread.start()

    def process_message(self, message: Message) -> None:
        self.heard.put(message)

    def unprocessed(self) -> int:
        return self.behind

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


def test_pasted_text_presses_no_key_whatever_is_in_it() -> None:
    pasted = "\x1b[31mred\x1b[0m X K Y \x1b[A\x1b\x1b[200~ é"
    with keyboard() as (reading, ours):
        os.write(ours, f"a\x1b[200~{pasted}\x1b[201~b".encode())
        assert reading.key() == "a"
        paste = reading.heard.get(timeout=LONG_S)
        assert isinstance(paste, Paste) and paste.text == pasted
        assert reading.key() == "b"


def test_a_megabyte_is_one_paste_of_which_the_beginning_is_kept() -> None:
    with keyboard() as (reading, ours):
        text = b"\x1b[200~" + b"0123456789\x1b[31m" * 80_000 + b"\x1b[201~"
        sender = Thread(target=lambda: write_all(ours, text + b"q"))
        sender.start()
        paste = reading.heard.get(timeout=LONG_S)
        assert isinstance(paste, Paste)
        assert len(paste.text) == KEPT and paste.text.startswith("0123456789\x1b[31m")
        assert reading.key() == "q"
        sender.join()


def test_a_flood_without_marks_is_a_paste_too() -> None:
    pastes, flood = Pastes(), "K\rY\rX0" * 50
    assert list(pastes.feed(flood)) == [(True, flood)]
    assert list(pastes.feed("KY", at_once=True)) == [(True, "KY")]
    assert list(pastes.feed("KY")) == [(False, "KY")]
    assert list(pastes.feed("q", at_once=True)) == [(False, "q")]
    moves = "\x1b[<35;10;10M" * 100  # a mouse that is moved while nobody looks
    assert list(pastes.feed(moves)) == [(False, moves)]


@pytest.mark.parametrize("cut", range(2, 6))
def test_the_mark_of_a_paste_may_come_in_two_pieces(cut: int) -> None:
    pastes, mark = Pastes(), "\x1b[200~"
    told = [*pastes.feed(f"a{mark[:cut]}"), *pastes.feed(f"{mark[cut:]}X\x1b[31mY\x1b[201~b")]
    assert told == [(False, "a"), (True, "X\x1b[31mY"), (False, "b")]


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@given(st.integers(1, 40), st.lists(st.sampled_from(["ab", "é", "\x1b[31m", "\x1b[20", "\x1b["])))
def test_a_paste_is_told_from_keys_wherever_it_is_cut(size: int, parts: list[str]) -> None:
    inside = "".join(parts)
    text = f"xy{BEGIN}{inside}{END}z"
    # A cut within the first two characters of a mark is the terminal's escape key to anybody.
    cuts = [at for at in range(size, len(text), size) if at not in (3, 4)]
    pastes = Pastes()
    got: list[tuple[bool, str]] = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        got += pastes.feed(text[begin:end])
    assert "".join(piece for pasted, piece in got if pasted) == inside
    assert "".join(piece for pasted, piece in got if not pasted) + pastes.flush() == "xyz"


def test_the_beginning_of_a_mark_that_does_not_go_on_is_a_key() -> None:
    with keyboard() as (reading, ours):
        os.write(ours, b"\x1b[20")
        os.write(ours, b"~")
        assert reading.key() == "f9"


def test_it_reads_no_further_ahead_than_the_screen_can_follow() -> None:
    with keyboard() as (reading, ours):
        reading.behind = 10**6
        os.write(ours, b"a")
        assert reading.key() == "a"
        os.write(ours, b"b")
        with pytest.raises(Empty):
            reading.heard.get(timeout=0.2)
        reading.behind = 0
        assert reading.key() == "b"
