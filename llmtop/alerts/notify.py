"""Messages to systemd (sd_notify): that the watch is ready, alive, and what it sees."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

MOST = 200  # characters of a status


class Notifier:
    """Writes to NOTIFY_SOCKET; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if self._path and (self._path.startswith("\0") or os.path.isabs(self._path)):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The watch has begun."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """One more look; keeps the watchdog quiet."""
        self._send(f"WATCHDOG=1\nSTATUS={' '.join(status.split())[:MOST]}")

    def stopping(self) -> None:
        """The watch ends."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # who started us does not listen any more
                self._socket.sendto(text.encode(), self._path)
