"""The terminal driver: Textual's, with an input thread that sleeps without input."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress

from textual.constants import ESCAPE_DELAY
from textual.events import Paste

from llmtop.tui.keys.pasting import Pastes
from llmtop.tui.terminal.keyboard_bytes import KeyboardBytes
from llmtop.tui.textual_private.driver import ParseError, PrivateDriver

# An escape may be a key or the beginning of another key. The parser decides by time, so it must be
# called until that time is over.
LOOK_S = 0.1
# Events that the screen has not processed. Each may take milliseconds, and a termination signal
# waits behind them.
AHEAD = 200
AHEAD_S = 0.01
LOOKS_FOR_S = max(1.0, ESCAPE_DELAY + 2 * LOOK_S)


class QuietDriver(PrivateDriver):
    """Textual 8's own thread wakes up ten times a second to check whether it should end.

    That takes a sixth of a per cent of a core, a tenth of the CPU time of an idle screen. This
    thread waits for input or for the end signal through a pipe.
    """

    _pipe: tuple[int, int] | None = None  # written to, it ends the thread

    def start_application_mode(self) -> None:
        """As ever; the pipe is there before the thread that listens to it."""
        self.begin_input()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def begin_input(self) -> None:
        """Make what ends the thread."""
        if self._pipe is None:
            self._pipe = os.pipe()

    def run_input_thread(self) -> None:
        """Turn what is typed into events until it is asked to end."""
        assert self._pipe is not None
        told = self._pipe[0]
        parser, pastes = self.new_parser(), Pastes()
        decode = KeyboardBytes().feed
        typed_at = time.monotonic()
        try:
            while not self.exit_event.is_set():
                busy = time.monotonic() - typed_at < LOOKS_FOR_S
                wait = LOOK_S if busy else None
                ready, _, _ = select.select([self.fileno, told], [], [], wait)
                if told in ready:
                    return
                if ready:
                    before, typed_at = typed_at, time.monotonic()
                    data = self._typed()
                    if not data:
                        self.hang_up()
                        return
                    at_once = typed_at - before < LOOK_S
                    for pasted, text in pastes.feed(decode(data), at_once=at_once):
                        events = [Paste(text.replace("\0", ""))] if pasted else parser.feed(text)
                        for event in events:
                            self.process_message(event)
                    self._let_catch_up()
                elif pastes.waits:
                    for event in parser.feed(pastes.flush()):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)
        finally:
            with suppress(EOFError, ParseError):
                for _ in parser.feed(""):
                    pass

    def _typed(self) -> bytes:
        """What was typed; nothing when there is no terminal any more."""
        try:
            return os.read(self.fileno, 4096)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def hang_up(self) -> None:
        """Leave as SIGHUP says. The kernel sends none where the terminal is not the controlling one
        (``setsid``, some containers): the screen would then run for ever."""
        os.kill(os.getpid(), signal.SIGHUP)

    def _let_catch_up(self) -> None:
        """Read no further ahead of the screen: a megabyte of keys is half a gigabyte of events."""
        while self.unseen() > AHEAD and not self.exit_event.wait(AHEAD_S):
            pass

    def disable_input(self) -> None:
        """Stop reading, and wait for the thread."""
        pipe = self._pipe
        if pipe is not None:
            os.write(pipe[1], b".")
        super().disable_input()
        if pipe is not None:  # not sooner: another file could get the same number
            self._pipe = None
            for end in pipe:
                os.close(end)
