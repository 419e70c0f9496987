"""Distributions of lengths in tokens and of pauses in seconds, and the text for them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

from msgspec import Struct

from llmtop import UsageError
from llmtop.printable import clean

MAX_TOKENS = 2_000_000  # of one prompt or answer: above any context there is
MAX_PAUSE_S = 86_400.0
MAX_CV = 10.0
TAIL = 16  # times the mean at which a log-normal distribution ends by default

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_LOG_NORMAL = re.compile(
    r"lognormal\s+(?P<mean>\S+)\s+cv\s+(?P<cv>\S+)(?:\s+max\s+(?P<highest>\S+))?"
)


class LogNormal(Struct, frozen=True):
    """A log-normal distribution that ends at ``highest``.

    mean: of the distribution without that end. cv: its standard deviation over its mean. Both give
    sigma^2 = ln(1 + cv^2) and mu = ln(mean) - sigma^2 / 2.
    """

    mean: float
    cv: float
    highest: float

    def quantile(self, share: float) -> float:
        """The value below which ``share`` (0..1, neither end) of the distribution lies."""
        variance = math.log1p(self.cv**2)
        middle, sigma = math.log(self.mean) - variance / 2, math.sqrt(variance)
        if sigma == 0:
            return self.mean
        from statistics import NormalDist  # with decimal and fractions: not before it is wanted

        normal = NormalDist()
        top = normal.cdf((math.log(self.highest) - middle) / sigma)
        return math.exp(middle + sigma * normal.inv_cdf(share * top))


Lengths = tuple[int, int] | LogNormal
"""Tokens: every number between two bounds, both included, equally often; or log-normal."""

Pauses = tuple[float, float] | LogNormal
"""Seconds, likewise."""


def parse_lengths(text: int | str) -> Lengths:
    """Read ``512``, ``448..576`` or ``lognormal 512 cv 0.8 max 4096``. Raises UsageError."""
    spread = _parse(str(text), _whole, "a length in tokens", "512, 448..576 or lognormal 512 cv 1")
    if isinstance(spread, LogNormal):
        return spread
    low, high = spread
    return int(low), int(high)


def parse_pauses(text: str) -> Pauses:
    """Read ``2s``, ``500ms..3s`` or ``lognormal 5s cv 1 max 60s``. Raises UsageError."""
    if text.strip() == "0":
        return 0.0, 0.0
    return _parse(text, _seconds, "a pause", "2s, 500ms..3s or lognormal 5s cv 1 max 60s")


def check_lengths(name: str, lengths: Lengths) -> None:
    """Raise UsageError for lengths that no prompt and no answer can have."""
    highest = lengths.highest if isinstance(lengths, LogNormal) else lengths[1]
    lowest = lengths.mean if isinstance(lengths, LogNormal) else lengths[0]
    if not 1 <= lowest <= highest <= MAX_TOKENS:
        shown = (
            f"up to {highest:g}" if isinstance(lengths, LogNormal) else "{}..{}".format(*lengths)
        )
        raise UsageError(
            f"{name} {shown} is no range of lengths", "for example 128..256, from 1 up"
        )
    _check_spread(name, lengths)


def check_pauses(name: str, pauses: Pauses) -> None:
    """Raise UsageError for pauses that cannot be kept."""
    highest = pauses.highest if isinstance(pauses, LogNormal) else pauses[1]
    lowest = pauses.mean if isinstance(pauses, LogNormal) else pauses[0]
    if not 0 <= lowest <= highest <= MAX_PAUSE_S:
        raise UsageError(f"{name} is not a range of pauses", "for example 500ms..3s, at most a day")
    _check_spread(name, pauses)


def draw_tokens(lengths: Lengths, count: int, chosen: random.Random) -> list[int]:
    """That many lengths in random order, one from each of as many equal parts of the distribution.

    So the lengths that come round again and again have the distribution's own mean and spread, and
    two seeds ask for the same amount of work.
    """
    shares = [(place + _inside(chosen)) / count for place in range(count)]
    chosen.shuffle(shares)
    if isinstance(lengths, LogNormal):
        return [max(1, round(lengths.quantile(share))) for share in shares]
    low, high = lengths
    return [min(high, low + int(share * (high - low + 1))) for share in shares]


def draw_pause(pauses: Pauses, chosen: random.Random) -> float:
    """One pause, seconds."""
    if isinstance(pauses, LogNormal):
        return pauses.quantile(_inside(chosen))
    return chosen.uniform(*pauses)


def _inside(chosen: random.Random) -> float:
    """Evenly distributed within 0..1, never at an end, where a logarithm has no value."""
    return min(max(chosen.random(), 1e-12), 1 - 1e-12)


def _check_spread(name: str, spread: Lengths | Pauses) -> None:
    if isinstance(spread, LogNormal) and not (spread.mean > 0 and 0 <= spread.cv <= MAX_CV):
        raise UsageError(f"{name}: cv is from 0 to {MAX_CV:g} and the mean more than 0")


def _parse(
    text: str, number: Callable[[str], float], what: str, example: str
) -> tuple[float, float] | LogNormal:
    text = text.strip().lower()
    try:
        if not text.isascii():  # digits of other scripts
            raise ValueError(text)
        if found := _LOG_NORMAL.fullmatch(text):
            middle = number(found["mean"])
            highest = number(found["highest"]) if found["highest"] else TAIL * middle
            return LogNormal(middle, float(found["cv"]), highest)
        low, dots, high = text.partition("..")
        bounds = number(low), number(high if dots else low)
        if bounds[0] > bounds[1]:
            raise ValueError(text)
        return bounds
    except ValueError:
        shown = clean(text, 60)
        raise UsageError(f"{shown!r} is not {what}", f"write {example}") from None


def _whole(text: str) -> float:
    if not re.fullmatch(r"\s*[0-9]{1,10}\s*", text):
        raise ValueError(text)
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _seconds(text: str) -> float:
    if re.fullmatch(_NUMBER, text.strip()):
        return float(text)
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2]]
