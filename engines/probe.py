"""One question to an HTTP server: which status does this path answer with?"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

Probe = Callable[[str, float], int | None]

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LONGEST = 256  # bytes: a status line has come long before that


def http_status(url: str, timeout_s: float) -> int | None:
    """The status code of a GET, None when there is no HTTP answer within ``timeout_s`` seconds.

    The limit holds for the whole exchange, also against a server that drips one byte at a time.
    It asks directly, never through a proxy from the environment: the question is about this port.
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout_s
    request = (
        f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "User-Agent: llmtop\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    try:
        address = (parts.hostname or "", parts.port or 80)
        with socket.create_connection(address, timeout=timeout_s) as connection:
            connection.sendall(request.encode("ascii", "replace"))
            while b"\n" not in answer and len(answer) < _LONGEST:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                connection.settimeout(left)
                piece = connection.recv(_LONGEST)
                if not piece:
                    break
                answer += piece
    except (OSError, ValueError):
        return None
    found = _STATUS.match(answer)
    return int(found[1]) if found else None
