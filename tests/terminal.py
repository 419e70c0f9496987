"""A terminal with a program in it: types keys, and reads the screen as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import pyte

# Sequences that this emulator would print as text: private modes, keyboard protocols, OSC, DCS.
UNKNOWN = re.compile(
    rb"\x1b\[\?[0-9;]*\$p|\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b[P_^][^\x1b]*\x1b\\"
    rb"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
)


class Terminal:
    """Runs ``argv`` on a pseudo terminal of the given size. Use it as a context manager."""

    def __init__(
        self, argv: Sequence[str], environ: dict[str, str], columns: int = 120, rows: int = 40
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._fed = 0
        self.started = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, and inherited so
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(argv[0], list(argv), {"TERM": "xterm-256color", **environ})
        self.code: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    @property
    def text(self) -> str:
        """What is on the screen now."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def canonical(self) -> bool:
        """Whether it gives a program whole lines, as a shell wants it, and not each key."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ICANON)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def see(self, what: str | Callable[[str], bool], seconds: float = 60.0) -> str:
        """Wait until the screen shows some text, or fulfils a condition; return the screen."""
        found = what if callable(what) else (lambda text: what in text)
        deadline = time.monotonic() + seconds
        while not found(self.text):
            left = deadline - time.monotonic()
            name = what if isinstance(what, str) else "what was waited for"
            assert left > 0, f"no {name!r} within {seconds:.0f} s on:\n{self.text}"
            assert self.read(min(left, 0.5)), f"ended without {name!r}:\n{self.text}"
        return self.text

    def read(self, seconds: float) -> bool:
        """Take in what the program writes; False once it has closed its terminal."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            return False
        self.raw += data
        # An escape sequence that is cut in two is kept back until its other half is here.
        whole = self.raw[self._fed :]
        cut = whole.rfind(b"\x1b")
        if 0 <= len(whole) - cut < 32 and not re.search(rb"[a-zA-Z\\\x07]", whole[cut + 2 :]):
            whole = whole[:cut]
        self._fed += len(whole)
        self._stream.feed(UNKNOWN.sub(b"", whole))
        return bool(data)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + seconds
        while True:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                while self.read(0.05):
                    if not select.select([self._fd], [], [], 0)[0]:
                        break
                return self.code
            assert time.monotonic() < deadline, f"still running after {seconds:.0f} s"
