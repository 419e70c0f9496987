"""Answers about steps, as a plugin sends them: material for tests of the client."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from llmtop.engines.core.steps import COLUMNS

UNKNOWN = float("nan")
PLAIN: Mapping[str, float] = {
    "duration_s": 0.01,
    "requests": 4,
    "prefill_tokens": 0,
    "decode_tokens": 4,
    "output_tokens": 4,
    "running": 4,
    "waiting": 0,
}


def rows(numbers: Sequence[float], **known: float) -> str:
    """Rows with these sequence numbers, in base64."""
    values = {**PLAIN, **known}
    packed = (
        struct.pack(
            f"<{len(COLUMNS)}d",
            *({"seq": seq, "end": 1000.0 + seq, **values}.get(name, UNKNOWN) for name in COLUMNS),
        )
        for seq in numbers
    )
    return base64.b64encode(b"".join(packed)).decode()


def steps_answer(first: int, last: int, **more: Any) -> dict[str, Any]:
    """The answer with the steps ``first`` to ``last``; none where last is before first."""
    numbers = range(first, last + 1)
    return {
        "ok": True,
        "protocol": 2,
        "rank": 0,
        "boot": "one",
        "next": last + 1,
        "lost": 0,
        "now": 1.0,
        "columns": list(COLUMNS),
        "rows": len(numbers),
        "data": rows(numbers),
        **more,
    }


class Ring:
    """An engine's end: steps that end one after the other, and are asked for."""

    def __init__(self, boot: str = "one", capacity: int = 100) -> None:
        self.boot, self.last, self.capacity = boot, 0, capacity

    def __call__(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        since, limit = request["since"], request["limit"]
        oldest = max(1, self.last - self.capacity + 1)
        begin = max(oldest, self.last - limit + 1 if since is None else since + 1)
        begin = min(begin, self.last + 1)
        end = min(self.last, begin + limit - 1)
        lost = 0 if since is None or since > self.last else begin - 1 - since
        return steps_answer(begin, end, boot=self.boot, next=self.last + 1, lost=lost)
