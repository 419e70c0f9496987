"""``ttft_p95 > 500ms for 30s``, ``hung``, ``kv > 95% for 1m``, ``state = failed``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llmtop import UsageError

# What a number is called -> the unit that its limit is written in.
NUMBERS: Mapping[str, str] = {
    **{f"{name}_{q}": "s" for name in ("ttft", "tpot", "itl", "e2e", "queue")
       for q in ("p50", "p95", "p99")},
    "oldest": "s",
    "kv": "%",
    "prefix_hit": "%",
    "running": "",
    "waiting": "",
    "tok/s": "",
    "requests/s": "",
    "preempted": "",
    "refused": "",
}  # fmt: skip
SAME = {"wait": "waiting", "run": "running", "kv_usage": "kv", "tokens": "tok/s"}
LEVELS = ("near_knee", "saturated", "overloaded", "hung")
WORDS = (*LEVELS, "stale", "unresponsive", "failed", "lost")
STATES = ("starting", "ready", "unresponsive", "stopping", "stopped", "failed", "lost")
LONGEST_S = 86_400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FOR = re.compile(r"(.*?)(?:\s+for\s+(\S.*))?", re.DOTALL)
_COMPARED = re.compile(r"([a-z][a-z0-9_/]*)\s*(>=|<=|>|<|!=|=)\s*(\S+(?:\s*[a-z%]+)?)")


class Sign(StrEnum):
    """How a number is compared."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="
    IS = "="
    IS_NOT = "!="


class Range(Struct, frozen=True):
    """What is known of a number: it is within these. high: None: no upper bound is known."""

    low: float
    high: float | None


class Seen(Struct, frozen=True):
    """One engine at one moment. words: the states that hold. numbers: None or absent: not known.

    state: of its process, "" for an engine that llmtop did not start. empty: numbers of which there
    was nothing to observe: no request ended, so none was late.
    """

    state: str = ""
    words: frozenset[str] = frozenset()
    numbers: Mapping[str, Range | None] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()


class Expression(Struct, frozen=True):
    """A condition and for how long it must hold. text: as it was written."""

    text: str
    subject: str
    sign: Sign | None = None
    limit: float | str = 0.0
    for_s: float = 0.0

    def holds(self, seen: Seen) -> bool | None:
        """Whether the condition holds; None where that is not known.

        A range that lies on both sides of a limit does not decide it.
        """
        if self.sign is None:
            return self.subject in seen.words
        if self.subject == "state":
            if not seen.state:
                return None
            return (seen.state == self.limit) == (self.sign is Sign.IS)
        if self.subject in seen.empty:
            return False
        value = seen.numbers.get(self.subject)
        assert isinstance(self.limit, float)
        return None if value is None else _compared(value, self.sign, self.limit)


def _compared(value: Range, sign: Sign, limit: float) -> bool | None:
    high = value.high if value.high is not None else float("inf")
    if sign in (Sign.BELOW, Sign.AT_MOST):
        below = high < limit or (sign is Sign.AT_MOST and high <= limit)
        above = value.low > limit or (sign is Sign.BELOW and value.low >= limit)
        return True if below else (False if above else None)
    if sign in (Sign.ABOVE, Sign.AT_LEAST):
        # The low end of a bucket is outside of it: a range from the limit on is above it.
        above = value.low > limit or (value.low == limit and (
            sign is Sign.AT_LEAST or high > limit))  # fmt: skip
        below = high < limit or (sign is Sign.ABOVE and high <= limit)
        return True if above else (False if below else None)
    if value.low == high:
        return (value.low == limit) == (sign is Sign.IS)
    outside = limit < value.low or limit > high
    return (sign is Sign.IS_NOT) if outside else None


def parse(text: str) -> Expression:
    """An expression as it is written. UsageError with what is wrong."""
    words = " ".join(text.lower().split())
    found = _FOR.fullmatch(words)
    condition, wait = (found[1], found[2]) if found else (words, None)
    for_s = 0.0
    if wait is not None:
        for_s = seconds(wait)
        if not 0 <= for_s <= LONGEST_S:
            raise UsageError(f"{wait!r} is not a duration", "write it like 30s or 5m")
    condition = condition.removeprefix("slo.")
    plain = condition.replace(" ", "_")
    if plain in WORDS:
        return Expression(words, plain, for_s=for_s)
    compared = _COMPARED.fullmatch(condition)
    if compared is None:
        raise UsageError(
            f"{text!r} is not a condition", "write it like hung, kv > 95% for 1m, state = failed"
        )
    subject, sign, limit = SAME.get(compared[1], compared[1]), Sign(compared[2]), compared[3]
    if subject == "state":
        if sign not in (Sign.IS, Sign.IS_NOT) or limit not in STATES:
            raise UsageError(f"{limit!r} is not a state", f"the states are {', '.join(STATES)}")
        return Expression(words, subject, sign, limit, for_s)
    if subject not in NUMBERS:
        import difflib

        near = difflib.get_close_matches(subject, (*NUMBERS, *WORDS), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(NUMBERS)}"
        raise UsageError(f"there is no number {subject!r}", hint)
    return Expression(words, subject, sign, _limit(limit, NUMBERS[subject]), for_s)


def _limit(text: str, unit: str) -> float:
    if unit == "s":
        value = seconds(text)
        if value < 0:
            raise UsageError(f"{text!r} is not a duration", "write it like 500ms or 2s")
        return value
    share = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e15 or share != (unit == "%"):
        wanted = "a share, such as 95%" if unit == "%" else "a number"
        raise UsageError(f"{text!r} is not {wanted}")
    return number / 100 if share else number


def seconds(text: str) -> float:
    """``500ms``, ``1m30s``; -1 for anything else."""
    whole = text.replace(" ", "")
    parts = list(_DURATION.finditer(whole))
    if not parts or "".join(part[0] for part in parts) != whole:
        return -1.0
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts)
