"""Budgets: how much worse an engine may become, such as ``ttft_p95=+5%,tok_s=-3%``."""

from __future__ import annotations

import re

from msgspec import Struct

from llmtop import UsageError
from llmtop.printable import clean

DEFAULT = "tok_s=-3%,ttft_p95=+10%,tpot_p50=+5%"
_LATENCIES = {
    f"{name}_{quantile}": (name, quantile)
    for name in ("ttft", "tpot", "itl", "e2e")
    for quantile in ("p50", "p95", "p99")
}
_RATES = {"tok_s": "output_tokens_per_s", "req_s": "requests_per_s"}
NAMES = (*_RATES, *_LATENCIES)
_PART = re.compile(r"\s*(\w+)\s*=\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


class Budget(Struct, frozen=True):
    """How much worse one measure may become. share: 0.05 for 5 %, always above 0."""

    measure: str
    share: float

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is better: true for rates, false for latencies."""
        return self.measure in _RATES

    @property
    def limit(self) -> float:
        """The ratio new / old at which the budget is used up."""
        return 1 - self.share if self.higher_is_better else 1 + self.share

    @property
    def words(self) -> str:
        """The budget as it is written on the command line: ``ttft_p95=+5%``."""
        sign = "-" if self.higher_is_better else "+"
        return f"{self.measure}={sign}{self.share * 100:g}%"


def parse_budget(text: str) -> tuple[Budget, ...]:
    """The budgets in a text of comma-separated parts. Raises UsageError for an invalid text."""
    found: dict[str, Budget] = {}
    for part in text.split(","):
        read = _PART.fullmatch(part)
        if read is None or read[1] not in NAMES:
            raise UsageError(
                f"a budget cannot be {clean(part.strip(), 60)!r}",
                f"write ttft_p95=+5%,tok_s=-3%; the measures are {', '.join(NAMES)}",
            )
        name, percent = read[1], float(read[2])
        share = percent / 100 if name not in _RATES else -percent / 100
        if not 0.001 <= share <= (0.9 if name in _RATES else 10.0):
            example = "-3%" if name in _RATES else "+5%"
            raise UsageError(
                f"the budget of {name} must be a change to the worse, such as {example}",
                "write + for a latency, which may rise, and - for a rate, which may fall",
            )
        if name in found:
            raise UsageError(f"{name} has two budgets", "give each measure once")
        found[name] = Budget(name, share)
    return tuple(found.values())


def value_path(measure: str) -> tuple[str, ...]:
    """The path of a measure's value in the JSON of a load."""
    if measure in _RATES:
        return (_RATES[measure],)
    name, quantile = _LATENCIES[measure]
    return (f"{name}_s", quantile)


def verdict_path(measure: str) -> tuple[str, ...] | None:
    """The path of the client's verdict on a measure in the JSON of a load; None: there is none."""
    if measure == "req_s":
        return None
    if measure == "tok_s":
        return ("client", "measures", "output_tokens_per_s", "valid")
    name, quantile = _LATENCIES[measure]
    return ("client", "measures", name, quantile, "valid")
