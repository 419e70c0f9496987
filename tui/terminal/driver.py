"""The terminal driver: Textual's, with an input thread that sleeps until there is input."""

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
POLL_S = 0.1
POLL_FOR_S = max(1.0, ESCAPE_DELAY + 2 * POLL_S)
# Most events that the screen has not processed. Each may take milliseconds, and a termination
# signal waits behind them.
MAX_UNPROCESSED = 200
CATCH_UP_S = 0.01


class QuietDriver(PrivateDriver):
    """A driver whose input thread waits for input, or for a byte in a pipe that ends it.

    The thread of Textual 8 wakes up ten times a second to check whether it should end. That takes
    a sixth of a per cent of a core, a tenth of the CPU time of an idle screen.
    """

    _pipe: tuple[int, int] | None = None  # a byte in it ends the thread

    def start_application_mode(self) -> None:
        """Start as Textual does; create the pipe before the thread that reads it."""
        self.begin_input()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def begin_input(self) -> None:
        """Create the pipe that ends the input thread."""
        if self._pipe is None:
            self._pipe = os.pipe()

    def run_input_thread(self) -> None:
        """Convert input to events until the pipe ends the thread."""
        assert self._pipe is not None
        end_fd = self._pipe[0]
        parser, pastes = self.new_parser(), Pastes()
        decode = KeyboardBytes().feed
        input_at = time.monotonic()
        try:
            while not self.exit_event.is_set():
                busy = time.monotonic() - input_at < POLL_FOR_S
                wait = POLL_S if busy else None
                ready, _, _ = select.select([self.fileno, end_fd], [], [], wait)
                if end_fd in ready:
                    return
                if ready:
                    before, input_at = input_at, time.monotonic()
                    data = self._read_input()
                    if not data:
                        self.hang_up()
                        return
                    at_once = input_at - before < POLL_S
                    for pasted, text in pastes.feed(decode(data), at_once=at_once):
                        events = [Paste(text.replace("\0", ""))] if pasted else parser.feed(text)
                        for event in events:
                            self.process_message(event)
                    self._wait_for_screen()
                elif pastes.waits:
                    for event in parser.feed(pastes.flush()):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)
        finally:
            with suppress(EOFError, ParseError):
                for _ in parser.feed(""):
                    pass

    def _read_input(self) -> bytes:
        """The bytes of the terminal; empty if the terminal is gone."""
        try:
            return os.read(self.fileno, 4096)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def hang_up(self) -> None:
        """Send SIGHUP to this process, because the terminal is gone.

        The kernel sends none if the terminal is not the controlling one (``setsid``, some
        containers). The screen would then run for ever.
        """
        os.kill(os.getpid(), signal.SIGHUP)

    def _wait_for_screen(self) -> None:
        """Wait until the screen has processed most events: 1 MB of keys is 0.5 GB of events."""
        while self.unprocessed() > MAX_UNPROCESSED and not self.exit_event.wait(CATCH_UP_S):
            pass

    def disable_input(self) -> None:
        """Stop the input thread and wait for its end."""
        pipe = self._pipe
        if pipe is not None:
            os.write(pipe[1], b".")
        super().disable_input()
        if pipe is not None:  # not earlier: another file could get the same descriptor
            self._pipe = None
            for end in pipe:
                os.close(end)
