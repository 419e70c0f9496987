"""Service level objectives: limits on the latencies of one request, and whether it meets them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.values import replace

METRICS = ("ttft", "tpot", "e2e")
EXAMPLE = "write it as ttft=500ms,tpot=50ms (also e2e=10s)"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LIMIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m)")


class Slo(Struct, frozen=True):
    """Limits in seconds; None: no limit. A request is in time when it meets all of them.

    TTFT and e2e count from the intended moment; TPOT is the mean gap of one request.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def met(self, record: RequestRecord) -> bool:
        """Whether the request ended without error and in time; refused, failed, timed-out and cut
        requests are not.

        An answer of a single token has no TPOT and so cannot break its limit.
        """
        if record.fate is not Fate.OK:
            return False
        if self.tpot is not None and record.tpot is not None and record.tpot > self.tpot:
            return False
        pairs = ((self.ttft, record.ttft), (self.e2e, record.e2e))
        return all(
            value is not None and value <= limit for limit, value in pairs if limit is not None
        )

    def extremes(self, record: RequestRecord) -> tuple[bool, bool]:
        """Whether it was in time at the upper and at the lower bound of its latencies."""
        if record.fate is not Fate.OK:
            return False, False
        tpot, high, low = self.tpot, record.tpot_high, record.tpot_low
        rest = replace(self, tpot=None)
        surely = rest.met(record) and (tpot is None or high is None or high <= tpot)
        pairs = ((self.ttft, record.ttft_low), (self.e2e, record.e2e_low))
        perhaps = (tpot is None or low is None or low <= tpot) and all(
            value is not None and value <= limit for limit, value in pairs if limit is not None
        )
        return surely, perhaps

    @property
    def limits(self) -> dict[str, float]:
        """The given limits, in seconds."""
        found = {name: getattr(self, name) for name in METRICS}
        return {name: limit for name, limit in found.items() if limit is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={limit * 1000:g}ms" for name, limit in self.limits.items())


def parse(text: str) -> Slo:
    """Parse ``ttft=500ms,tpot=50ms``. Raises UsageError for an invalid text."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().lower().partition("=")
        name = name.strip()
        found = _LIMIT.fullmatch(value.strip())
        if not equals or name not in (*METRICS, "itl") or found is None:
            raise UsageError(f"{part.strip()[:60]!r} is not a limit", EXAMPLE)
        if name in limits:
            raise UsageError(f"{name} has two limits", EXAMPLE)
        limits[name] = float(found[1]) * _UNITS[found[2]]
        if limits[name] <= 0:
            raise UsageError(f"the limit of {name} must be more than 0", EXAMPLE)
    return of(limits)


def of(limits: Mapping[str, float]) -> Slo:
    """Limits by name, in seconds. UsageError for a metric that a single request does not have."""
    if "itl" in limits:
        raise UsageError(
            "gaps between tokens are not kept for each request, so itl cannot be a limit",
            "tpot limits the mean gap of each request",
        )
    return Slo(**limits)
