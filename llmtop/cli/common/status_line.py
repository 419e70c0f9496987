"""The line on stderr that shows the progress of a long command."""

from __future__ import annotations

import errno
import sys
import time

import click


def soon(left_s: float) -> str:
    """The time left as text: ``2s left``."""
    return f"{left_s:.0f}s left" if left_s >= 0.5 else "almost done"


class StatusLine:
    """One line on stderr, overwritten in place on a terminal, else printed at intervals.

    quiet: print nothing unless stderr is a terminal. every_s: interval without a terminal.
    """

    def __init__(self, quiet: bool, every_s: float = 5.0) -> None:
        self._live = sys.stderr.isatty()
        self._quiet = quiet and not self._live
        self._every_s = 0.5 if self._live else every_s
        self._shown_at = -1e9

    @property
    def due(self) -> bool:
        """Whether ``show`` would print now."""
        return not self._quiet and time.monotonic() - self._shown_at >= self._every_s

    def show(self, words: str, *, now: bool = False) -> None:
        """Show the progress, at most once per interval. now: ignore the interval."""
        if self._quiet or not (now or self.due):
            return
        self._shown_at = time.monotonic()
        self._write(f"\r\x1b[K{words}" if self._live else words, nl=not self._live)

    def keep(self, words: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            self.clear()
            self._write(words)

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._live and not self._quiet:
            self._write("\r\x1b[K", nl=False)

    def _write(self, words: str, *, nl: bool = True) -> None:
        try:
            click.echo(words, nl=nl, err=True)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the terminal was closed
                raise
