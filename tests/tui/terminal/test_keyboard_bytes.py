"""Bytes of a terminal that are no characters and no keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.app import LlmtopApp
from llmtop.tui.terminal.driver import MAX_UNPROCESSED, QuietDriver
from llmtop.tui.terminal.keyboard_bytes import KeyboardBytes
from tests.tui.keys.test_keyboard import keyboard


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"q"], "q"),
        ([b"a\xffb"], "a\ufffdb"),
        ([b"\xc3", b"\xa9"], "\u00e9"),  # a character in two reads
        ([b"\x1b[A\x1b[B"], "\x1b[A\x1b[B"),
        ([b"\x1b[M \xff\xe0q"], "q"),  # a mouse report in the old form
        ([b"\x1b[M", b" \xff", b"\xe0q"], "q"),
        ([b"\x1b[<0;10;5M"], "\x1b[<0;10;5M"),  # the form that we ask for
        ([b"\x1b[" * 3 + b"A"], "\x1b[A"),
        ([b"\x1b[1;2", b"\x1b[A"], "\x1b[1;2\x1b[A"),  # cut off between two reads: as it comes
    ],
)
def test_what_is_typed_is_kept_and_the_rest_is_not(pieces: list[bytes], text: str) -> None:
    keys = KeyboardBytes()
    assert "".join(keys.feed(piece) for piece in pieces) == text


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    keys = KeyboardBytes()
    for piece in pieces:
        keys.feed(piece)


def test_thousands_of_sequences_that_never_end_are_next_to_nothing() -> None:
    assert len(KeyboardBytes().feed(b"\x1b[" * 15_000)) == 2
    assert MAX_UNPROCESSED <= 500  # a signal to end waits behind as many


@pytest.mark.parametrize("noise", [b"\xff", b"\x1b[M \xf0\xf1", b"\xc3\x28"])
def test_keys_are_heard_after_bytes_that_are_none(noise: bytes) -> None:
    with keyboard() as (reading, ours):
        os.write(ours, noise + b"q")
        heard = [reading.key()]
        while heard[-1] != "q":
            heard.append(reading.key())
        assert len(heard) <= 3


def test_a_fault_of_the_keyboards_thread_is_one_of_the_app() -> None:
    told: list[Exception] = []

    class App:
        def _handle_exception(self, error: Exception) -> None:
            told.append(error)

        def call_later(self, do: Callable[..., None], *args: Any) -> None:
            do(*args)

    class Broken(QuietDriver):
        def __init__(self) -> None:
            self._app = App()  # type: ignore[assignment]

        def run_input_thread(self) -> None:
            raise OSError(5, "the terminal is gone")

    Broken()._run_input_thread()
    assert [str(error) for error in told] == ["[Errno 5] the terminal is gone"]


async def test_a_crashed_screen_has_a_code_and_a_line_and_no_page_of_variables(
    make_app: Callable[..., LlmtopApp],
) -> None:
    app = make_app()
    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=(80, 24)) as pilot:
            app.call_later(lambda: 1 / 0)
            await pilot.pause()
    assert app.return_code == 1
    assert app.fault == "ZeroDivisionError: division by zero"
    assert not app._exit_renderables


async def test_keys_that_come_after_the_end_was_asked_for_do_nothing(
    make_app: Callable[..., LlmtopApp], control: Any
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app._exit = True
        await pilot.press("plus")
        assert control.calls == []
