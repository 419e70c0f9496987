"""A conversation: each turn repeats all earlier messages."""

from __future__ import annotations

import json
from collections.abc import Iterator

from llmtop.loadgen.workload.request_body import RequestBody

MAX_HISTORY = 1 << 20  # bytes; a conversation that grew longer than this ends

Turn = tuple[bytes, int]
"""The user's message as JSON (or several with commas), and tokens of the answer."""


class Conversation:
    """One conversation. turn: which one is being asked, counted from 1."""

    __slots__ = ("_envelope", "_history", "_output", "_turns", "turn")

    def __init__(self, envelope: RequestBody, turns: Iterator[Turn]) -> None:
        self._envelope, self._turns = envelope, turns
        self._history, self._output = next(turns)
        self.turn = 1

    def body(self) -> bytes:
        """The request for this turn: everything that was said so far."""
        return self._envelope.wrap(self._history, self._output)

    def answered(self, text: str) -> bool:
        """This turn was answered; whether there is another one, which is then asked next.

        What a model thought before its answer is not sent back, as chat templates leave it out.
        """
        following = next(self._turns, None)
        if following is None:
            return False
        message, self._output = following
        said = json.dumps({"role": "assistant", "content": text}).encode()
        self._history = b"%b,%b,%b" % (self._history, said, message)
        self.turn += 1
        return len(self._history) <= MAX_HISTORY

    @property
    def size(self) -> int:
        """Bytes that it keeps."""
        return len(self._history)
