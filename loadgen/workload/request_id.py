"""What an engine is asked to call each request: a key that joins its logs with our records.

vLLM takes it from the header X-Request-Id and puts ``cmpl-`` or ``chatcmpl-`` before it; SGLang
takes ``rid`` in the body (``Target.rid``).
"""

from __future__ import annotations

import os

_MOST = 16**8  # requests of one worker


def new_run() -> str:
    """How the ids of one load begin; two loads on one engine have different ones."""
    return f"llmtop-{os.urandom(4).hex()}"


class RequestIds:
    """One worker's, all of the same length: SGLang ends every request whose id begins with the one
    that is to be ended. run: how they begin; "" for no ids at all."""

    def __init__(self, run: str = "", index: int = 0) -> None:
        self._head = f"{run}-{index:02x}" if run else ""
        self._count = 0

    def next(self) -> str:
        """The next request's."""
        if not self._head:
            return ""
        number, self._count = self._count, (self._count + 1) % _MOST
        return f"{self._head}{number:08x}"


def with_rid(body: bytes, request_id: str) -> bytes:
    """A body of ours with its id in it."""
    return b'{"rid":"%b",%b' % (request_id.encode(), body[1:])
