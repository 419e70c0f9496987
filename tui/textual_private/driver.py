"""Textual's Linux driver, with public names for the private parts that llmtop uses."""

from __future__ import annotations

import sys
from typing import Any

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

__all__ = ["ParseError", "PrivateDriver", "XTermParser"]


class PrivateDriver(LinuxDriver):
    """Calls ``run_input_thread`` in a thread; an error of that thread ends the app."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Write to standard output if standard error, Textual's choice, is not a terminal."""
        super().__init__(*args, **options)
        if sys.__stderr__ is None or not sys.__stderr__.isatty():
            self._file = sys.__stdout__
            if sys.__stdout__ is not None:  # as for standard error: names may hold any byte
                sys.__stdout__.reconfigure(errors="backslashreplace")

    def _run_input_thread(self) -> None:
        """Run the thread; an error in it ends the app with exit code 1."""
        try:
            self.run_input_thread()
        except Exception as error:
            self._app.call_later(self._app._handle_exception, error)

    def new_parser(self) -> XTermParser:
        """A new parser that converts input to events."""
        return XTermParser(self._debug)

    def unprocessed(self) -> int:
        """The number of events that the screen has not processed yet."""
        waiting = self._app.message_queue_size
        for screen in self._app.screen_stack[-1:]:
            waiting += screen.message_queue_size
            waiting += screen.focused.message_queue_size if screen.focused is not None else 0
        return waiting
