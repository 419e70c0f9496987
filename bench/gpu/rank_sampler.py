"""Samples each data-parallel rank of a vLLM four times a second during a run."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.host.rank_sockets import socket_of
from llmtop.engines.tuning.live_client import LiveClient

INTERVAL_S = 0.25
SERIES = ("num_requests_running", "num_requests_waiting", "num_preemptions_total")


class Sampler:
    """Samples all ranks four times a second into ``samples``, in its own thread.

    A sample has ``t`` (seconds since the start); ``running``, ``waiting`` and ``preemptions`` of
    each rank, from /metrics; and ``cap``, the max_num_seqs in force on each rank, from its socket
    (None where the rank does not answer).
    """

    def __init__(self, url: str, socket: Path, size: int) -> None:
        self.samples: list[dict[str, Any]] = []
        self._url, self._socket, self._size = url, socket, size
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join(10)

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    @property
    def running(self) -> list[float]:
        """The running requests of each rank in the newest sample."""
        return list(self.samples[-1]["running"]) if self.samples else [0.0] * self._size

    def since(self, moment: float) -> list[dict[str, Any]]:
        """The samples from a moment on (seconds since the start)."""
        return [sample for sample in self.samples if sample["t"] >= moment]

    def first(self, moment: float, condition: Callable[[list[float]], bool]) -> float | None:
        """Seconds from a moment to the first sample whose running requests meet the condition.

        They include the start of the command's interpreter, if a command made the change.
        """
        found = (s["t"] - moment for s in self.since(moment) if condition(s["running"]))
        return next(found, None)

    def _run(self) -> None:
        while not self._over.wait(INTERVAL_S):
            with contextlib.suppress(OSError, ValueError):
                self.samples.append(self._sample())

    def _sample(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found: dict[str, Any] = {"t": round(self.now(), 3)}
        for name, short in zip(SERIES, ("running", "waiting", "preemptions"), strict=True):
            found[short] = [self._value(text, name, rank) for rank in range(self._size)]
        found["cap"] = asyncio.run(self._caps())
        return found

    def _value(self, text: str, name: str, rank: int) -> float:
        pattern = rf'^vllm:{name}\{{[^}}]*engine="{rank}"[^}}]*\}} (\S+)$'
        return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))

    async def _caps(self) -> list[int | None]:
        return list(await asyncio.gather(*(self._cap(rank) for rank in range(self._size))))

    async def _cap(self, rank: int) -> int | None:
        try:
            state = await LiveClient(socket_of(self._socket, rank), timeout_s=0.5).get()
            return state.options["max_num_seqs"].value
        except (LiveError, KeyError):
            return None
