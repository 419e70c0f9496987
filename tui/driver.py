"""The terminal's driver: Textual's, with an input thread that sleeps while nobody types."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import Any

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.constants import ESCAPE_DELAY
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Paste

from llmtop.tui.pasting import Pastes

# An escape may be a key of its own or the beginning of another: the parser decides by time, and is
# to be asked as long as that can take.
LOOK_S = 0.1
AHEAD = 2000  # events that the screen has not seen yet
AHEAD_S = 0.01
LOOKS_FOR_S = max(1.0, ESCAPE_DELAY + 2 * LOOK_S)


class QuietDriver(LinuxDriver):
    """Textual 8's own thread wakes up ten times a second for ever, to see whether it should end.

    That is a sixth of a per cent of a core, a tenth of all that an idle screen costs. This one
    waits for input or for the word to end, which comes through a pipe.
    """

    _pipe: tuple[int, int] | None = None  # written to, it ends the thread

    def __init__(self, *args: Any, **more: Any) -> None:
        """As ever; but where standard error goes into a file, the screen does not go with it."""
        super().__init__(*args, **more)
        if sys.__stderr__ is None or not sys.__stderr__.isatty():
            self._file = sys.__stdout__
            if sys.__stdout__ is not None:  # as standard error has it: a name is no fault of ours
                sys.__stdout__.reconfigure(errors="backslashreplace")

    def start_application_mode(self) -> None:
        """As ever; the pipe is there before the thread that listens to it."""
        self.begin_input()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def begin_input(self) -> None:
        """Make what ends the thread."""
        if self._pipe is None:
            self._pipe = os.pipe()

    def run_input_thread(self) -> None:
        """Turn what is typed into events until it is told to end."""
        assert self._pipe is not None
        told = self._pipe[0]
        parser, pastes = XTermParser(self._debug), Pastes()
        decode = getincrementaldecoder("utf-8")().decode
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
        (``setsid``, some containers): the screen would go on for ever, painted for nobody."""
        os.kill(os.getpid(), signal.SIGHUP)

    def _let_catch_up(self) -> None:
        """Read no further ahead of the screen: a megabyte of keys is half a gigabyte of events."""
        while self.unseen() > AHEAD and not self.exit_event.wait(AHEAD_S):
            pass

    def unseen(self) -> int:
        """How many events of this thread the screen has not seen yet."""
        waiting = self._app.message_queue_size
        for screen in self._app.screen_stack[-1:]:
            waiting += screen.message_queue_size
            waiting += screen.focused.message_queue_size if screen.focused is not None else 0
        return waiting

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
