"""Readiness: the HTTP status with which a server answers a path.

It has sockets of its own and does not use ``client``, for three reasons:

- The supervisor calls it from its threads, also in commands that have no event loop. ``client``
  needs one. A thread with a loop, only for this, makes a question cost five times the CPU: 0.43
  instead of 0.08 ms, for each engine and second.
- One limit covers the whole exchange. The standard library's HTTP limits each read only, so a
  server that sends single bytes would hold up a thread of the supervisor.
- The status is enough, and the connection is kept. ``client.status`` closes it each time, and
  ``client.request`` waits for a body that may be late or never end.
"""

from __future__ import annotations

import re
import select
import socket
import time
import weakref
from collections.abc import Callable
from urllib.parse import urlsplit

from llmtop import LlmtopError
from llmtop.trust import Trusts

Probe = Callable[[str, float], int | None]

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,4})\r\n")
_LONGEST = 256  # bytes: longer than every status line
_MOST = 4096  # bytes: after a longer answer the connection is closed
_REST_S = 0.05  # for the bytes after the status line: the status is known by then


class KeptProbe:
    """The status code of a GET, None without an HTTP answer within the given seconds.

    The limit covers the whole exchange, also with a server that sends single bytes. It never uses
    a proxy from the environment: it tests this port. The connection is kept, because a new one each
    second costs the server more than the answer. trusts: the certificates to trust.
    """

    def __init__(self, *, trusts: Trusts | None = None) -> None:
        self._trusts = trusts if trusts is not None else Trusts()
        self._kept: dict[tuple[str, int], socket.socket] = {}
        weakref.finalize(self, _close, self._kept)

    def __call__(self, url: str, timeout_s: float) -> int | None:
        """One request. Two threads may call it at once; each then has its own connection."""
        parts = urlsplit(url)
        deadline = time.monotonic() + timeout_s
        try:
            secure = parts.scheme == "https"
            place = parts.hostname or "", parts.port or (443 if secure else 80)
        except ValueError:
            return None
        request = (
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: llmtop\r\n"
            f"Accept: */*\r\nConnection: keep-alive\r\n\r\n"
        ).encode("ascii", "replace")
        kept = self._kept.pop(place, None)
        if kept is not None and has_spoken(kept):
            kept.close()
        elif kept is not None:
            answer = self._ask(kept, place, request, deadline)
            # No answer: the server closed the connection while it was idle.
            if answer or time.monotonic() >= deadline:
                return _status(answer)
        try:
            left = max(0.001, deadline - time.monotonic())
            fresh = socket.create_connection(place, timeout=left)
        except (OSError, ValueError):
            return None
        if secure:
            try:
                fresh = self._encrypted(fresh, url, place[0], deadline)
            except (OSError, ValueError, LlmtopError):
                fresh.close()
                return None
        return _status(self._ask(fresh, place, request, deadline))

    def _encrypted(
        self, plain: socket.socket, url: str, host: str, deadline: float
    ) -> socket.socket:
        plain.settimeout(max(0.001, deadline - time.monotonic()))
        return self._trusts.of(url).context().wrap_socket(plain, server_hostname=host)

    def _ask(
        self, connection: socket.socket, place: tuple[str, int], request: bytes, deadline: float
    ) -> bytes:
        """The received bytes, at least the first line if there is one; b"" for nothing."""
        answer, again = b"", False
        try:
            connection.sendall(request)
            while b"\n" not in answer and len(answer) < _LONGEST:
                left = deadline - time.monotonic()
                if left <= 0:
                    return b""
                connection.settimeout(left)
                piece = connection.recv(_MOST)
                if not piece:
                    return answer
                answer += piece
            rest = answer
            until = min(deadline, time.monotonic() + _REST_S)
            while rest and not (again := _is_whole(rest)) and len(rest) < _MOST:
                connection.settimeout(max(0.001, until - time.monotonic()))
                piece = connection.recv(_MOST)
                rest = rest + piece if piece and time.monotonic() < until else b""
        except (OSError, ValueError):
            pass
        finally:
            if not again or self._kept.setdefault(place, connection) is not connection:
                connection.close()
        return answer


def _status(answer: bytes) -> int | None:
    found = _STATUS.match(answer)
    return int(found[1]) if found else None


def has_spoken(idle: socket.socket) -> bool:
    """Whether unexpected data or the end has arrived, which would spoil the next answer."""
    looks = select.poll()  # select() does not support descriptors above 1023
    looks.register(idle, select.POLLIN)
    return bool(looks.poll(0))


def _is_whole(answer: bytes) -> bool:
    """Whether the answer is complete and the connection stays open."""
    head, end, body = answer.partition(b"\r\n\r\n")
    lines = head.lower() + b"\r\n"
    length = _LENGTH.search(lines)
    closes = not lines.startswith(b"http/1.1") or b"\r\nconnection: close\r\n" in lines
    return bool(end and length and not closes) and len(body) == int(length[1] if length else -1)


def _close(kept: dict[tuple[str, int], socket.socket]) -> None:
    for connection in kept.values():
        connection.close()
    kept.clear()
