"""Readiness probes: the HTTP status of a server's answer to a GET.

A probe has sockets of its own and does not use ``client``, for three reasons:

- The supervisor calls it from its threads, also in commands without an event loop. ``client`` needs
  an event loop. A thread with a loop only for probes makes each probe cost five times the CPU: 0.43
  instead of 0.08 ms, for each engine and second.
- One limit covers the whole exchange. The standard library's HTTP limits each read only, so a
  server that sends single bytes would block a thread of the supervisor.
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
_LONGEST = 256  # bytes; longer than any status line
_MOST = 4096  # bytes; a connection with a longer answer is not reused
_REST_S = 0.05  # wait for the rest of the answer, which only decides whether to keep the connection


class KeptProbe:
    """A probe that returns the status code of a GET; None without an HTTP answer in time.

    The time limit covers the whole exchange, even if the server sends single bytes. A proxy from
    the environment is not used: the probe tests this port. The connection is kept, because a new
    one each second costs the server more than the answer. trusts: the certificates to trust.
    """

    def __init__(self, *, trusts: Trusts | None = None) -> None:
        self._trusts = trusts if trusts is not None else Trusts()
        self._kept: dict[tuple[str, int], socket.socket] = {}
        weakref.finalize(self, _close, self._kept)

    def __call__(self, url: str, timeout_s: float) -> int | None:
        """Send one request. Several threads may call it at the same time."""
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
        if kept is not None and is_readable(kept):
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
        """The received bytes, with the first line if it came in time; b"" for none."""
        answer, reusable = b"", False
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
            while rest and not (reusable := _is_complete(rest)) and len(rest) < _MOST:
                connection.settimeout(max(0.001, until - time.monotonic()))
                piece = connection.recv(_MOST)
                rest = rest + piece if piece and time.monotonic() < until else b""
        except (OSError, ValueError):
            pass
        finally:
            if not reusable or self._kept.setdefault(place, connection) is not connection:
                connection.close()
        return answer


def _status(answer: bytes) -> int | None:
    found = _STATUS.match(answer)
    return int(found[1]) if found else None


def is_readable(idle: socket.socket) -> bool:
    """Whether an idle connection has unexpected data or has ended, so it must not be reused."""
    poll = select.poll()  # select() does not support descriptors above 1023
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def _is_complete(answer: bytes) -> bool:
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
