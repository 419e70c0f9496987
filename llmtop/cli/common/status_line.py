"""The line on stderr that shows how far a long command is."""

from __future__ import annotations

import errno
import sys
import time

import click


def soon(left_s: float) -> str:
    """The time left as text: ``2s left``."""
    return f"{left_s:.0f}s left" if left_s >= 0.5 else "almost done"


class StatusLine:
    """One line on stderr: replaced in place on a terminal, printed at intervals elsewhere."""

    def __init__(self, quiet: bool, every_s: float = 5.0) -> None:
        self._live = sys.stderr.isatty()
        self._quiet = quiet and not self._live
        self._every_s = 0.5 if self._live else every_s
        self._said = -1e9

    @property
    def due(self) -> bool:
        """Whether ``show`` would print now."""
        return not self._quiet and time.monotonic() - self._said >= self._every_s

    def show(self, words: str, *, now: bool = False) -> None:
        """Show the state, at most once in the interval. now: show it at once."""
        if self._quiet or not (now or self.due):
            return
        self._said = time.monotonic()
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
            if error.errno != errno.EIO:  # EIO: the terminal has hung up
                raise
