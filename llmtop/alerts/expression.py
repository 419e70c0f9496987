"""Conditions of alert rules.

For example ``ttft_p95 > 500ms for 30s``, ``hung``, ``kv > 95% for 1m``, ``state = failed``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llmtop import UsageError

# Name of a number -> unit of its limit.
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
ALIASES = {"wait": "waiting", "run": "running", "kv_usage": "kv", "tokens": "tok/s"}
LEVELS = ("near_knee", "saturated", "overloaded", "hung")
WORDS = (*LEVELS, "stale", "unresponsive", "failed", "lost")
STATES = ("starting", "ready", "unresponsive", "stopping", "stopped", "failed", "lost")
LONGEST_S = 86_400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FOR = re.compile(r"(.*?)(?:\s+for\s+(\S.*))?", re.DOTALL)
_COMPARED = re.compile(r"([a-z][a-z0-9_/]*)\s*(>=|<=|>|<|!=|=)\s*(\S+(?:\s*[a-z%]+)?)")


class Operator(StrEnum):
    """A comparison operator."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="
    IS = "="
    IS_NOT = "!="


class Range(Struct, frozen=True):
    """The bounds of a number. high None: no upper bound is known."""

    low: float
    high: float | None


class Snapshot(Struct, frozen=True):
    """One engine at one moment.

    state: of its process, "" for an engine that llmtop did not start. words: those of ``WORDS``
    that apply. numbers: by name; None or absent means not known. empty: names of numbers without
    an observation: if no request ended, none was late.
    """

    state: str = ""
    words: frozenset[str] = frozenset()
    numbers: Mapping[str, Range | None] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()


class Expression(Struct, frozen=True):
    """A condition, and the seconds for which it must hold. text: the normalised text.

    subject: a word, the name of a number, or ``state``. operator: None for a word.
    """

    text: str
    subject: str
    operator: Operator | None = None
    limit: float | str = 0.0
    for_s: float = 0.0

    def holds(self, snapshot: Snapshot) -> bool | None:
        """Whether the condition holds; None if that is not known.

        It is not known if the range of a number lies on both sides of the limit.
        """
        if self.operator is None:
            return self.subject in snapshot.words
        if self.subject == "state":
            if not snapshot.state:
                return None
            return (snapshot.state == self.limit) == (self.operator is Operator.IS)
        if self.subject in snapshot.empty:
            return False
        value = snapshot.numbers.get(self.subject)
        assert isinstance(self.limit, float)
        return None if value is None else _compared(value, self.operator, self.limit)


def _compared(value: Range, operator: Operator, limit: float) -> bool | None:
    high = value.high if value.high is not None else float("inf")
    if operator in (Operator.BELOW, Operator.AT_MOST):
        below = high < limit or (operator is Operator.AT_MOST and high <= limit)
        above = value.low > limit or (operator is Operator.BELOW and value.low >= limit)
        return True if below else (False if above else None)
    if operator in (Operator.ABOVE, Operator.AT_LEAST):
        # A bucket does not include its lower bound, so a range that starts at the limit is above.
        above = value.low > limit or (value.low == limit and (
            operator is Operator.AT_LEAST or high > limit))  # fmt: skip
        below = high < limit or (operator is Operator.ABOVE and high <= limit)
        return True if above else (False if below else None)
    if value.low == high:
        return (value.low == limit) == (operator is Operator.IS)
    outside = limit < value.low or limit > high
    return (operator is Operator.IS_NOT) if outside else None


def parse(text: str) -> Expression:
    """Parse the condition of a rule. Raises UsageError with the fault."""
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
    subject, limit = ALIASES.get(compared[1], compared[1]), compared[3]
    operator = Operator(compared[2])
    if subject == "state":
        if operator not in (Operator.IS, Operator.IS_NOT) or limit not in STATES:
            raise UsageError(f"{limit!r} is not a state", f"the states are {', '.join(STATES)}")
        return Expression(words, subject, operator, limit, for_s)
    if subject not in NUMBERS:
        import difflib

        near = difflib.get_close_matches(subject, (*NUMBERS, *WORDS), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known numbers: {', '.join(NUMBERS)}"
        raise UsageError(f"there is no number {subject!r}", hint)
    return Expression(words, subject, operator, _limit(limit, NUMBERS[subject]), for_s)


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
    """The seconds of a duration such as ``500ms`` or ``1m30s``; -1 for other text."""
    whole = text.replace(" ", "")
    parts = list(_DURATION.finditer(whole))
    if not parts or "".join(part[0] for part in parts) != whole:
        return -1.0
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts)
