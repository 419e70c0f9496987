"""Messages to systemd (the sd_notify protocol): readiness, watchdog, status."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

MOST_STATUS = 200  # characters


class Notifier:
    """Sends messages to the socket of NOTIFY_SOCKET. Does nothing if that is not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if self._path and (self._path.startswith("\0") or os.path.isabs(self._path)):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Report that the watch has started."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """Reset the watchdog of systemd, and set the status text."""
        self._send(f"WATCHDOG=1\nSTATUS={' '.join(status.split())[:MOST_STATUS]}")

    def stopping(self) -> None:
        """Report that the watch ends."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # systemd does not listen any more
                self._socket.sendto(text.encode(), self._path)
