"""Plain values as the words and numbers of the screen. Pure: no widget, no colour, no clock.

``--`` means not known; a zero is a real zero.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from llmtop.engines.core.options import Applies, OptionValue
from llmtop.engines.core.samples import Quantile, Quantiles
from llmtop.printable import clean as clean  # the screen names it with the other formats

ABSENT = "--"
GIB = 2**30

_FIGURES = "0123456789."


def count(value: float | None) -> str:
    """A number of things: ``6,618``; from 100,000 on ``607k``."""
    if value is None:
        return ABSENT
    if abs(value) >= 100_000:
        return short(value)
    return f"{round(value):,}"


def rate(value: float | None) -> str:
    """A rate without its unit: ``0.4``, ``54.7``, ``6,618``, ``27.1k``."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    if abs(value) < 99.95:
        return f"{value:.1f}"
    if abs(value) < 10_000:
        return f"{round(value):,}"
    return short(value)


def short(value: float | None) -> str:
    """At most four figures with k, M or G: ``920``, ``8k``, ``27.1k``, ``607k``, ``1.2M``."""
    if value is None:
        return ABSENT
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            text = f"{scaled:.0f}" if abs(scaled) >= 99.95 else f"{scaled:.1f}".removesuffix(".0")
            return text + unit
    if value and abs(value) < 9.95:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.0f}"


def percent(share: float | None) -> str:
    """A share of 0..1: ``66%``; below one per cent with one decimal, so that little is not none."""
    if share is None:
        return ABSENT
    if 0 < share < 0.00995:
        return f"{max(share * 100, 0.1):.1f}%"
    return f"{share * 100:.0f}%"


def latency(seconds: float | None) -> str:
    """``0``, ``20us``, ``8.2ms``, ``180ms``, ``1.91s``, ``12.3s``, ``2m05s``."""
    if seconds is None:
        return ABSENT
    if seconds == 0:
        return "0"
    if seconds < 0.000995:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.00995:
        return f"{seconds * 1e3:.1f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 9.995:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    if seconds < 99.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    return duration(seconds)


def quantile(value: Quantile | None) -> str:
    """A quantile as far as it is known: ``412ms``, ``5-10s``, ``<300ms``, ``>80s``."""
    if value is None:
        return ABSENT
    if value.relation == "-":
        low, high = _bound(value.at_least), _bound(value.at_most)
        unit = high.lstrip(_FIGURES)
        same = unit == low.lstrip(_FIGURES)
        return f"{low.removesuffix(unit) if same else low}-{high}"
    if value.relation == "=":
        return latency(value.seconds)
    return value.relation + _bound(value.seconds)


def own_quantile(found: Quantiles, value: Quantile | None) -> str:
    """A quantile of the engine's own, with how exact it is: ``412ms±1%``; else as ``quantile``."""
    known = found.exact is not None and value is not None
    return f"{quantile(value)}±{percent(found.exact)}" if known else quantile(value)


def _bound(seconds: float | None) -> str:
    """A bucket's bound: a round number, so without a decimal that is 0."""
    return latency(seconds).replace(".0ms", "ms")


def duration(seconds: float | None) -> str:
    """How long something took or has lasted: ``0s``, ``42s``, ``2m05s``, ``1h12m``, ``3d04h``."""
    if seconds is None:
        return ABSENT
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def span(seconds: float | None) -> str:
    """The length of a window: ``10s``, ``2.5s``, ``104s``."""
    if seconds is None:
        return ABSENT
    return f"{seconds:.1f}".removesuffix(".0") + "s"


def gib(size: float | None) -> str:
    """Bytes in GiB without the unit: ``15.0``, ``139.8``."""
    return ABSENT if size is None else f"{size / GIB:.1f}"


def clock(time: float, zone: tzinfo | None = None) -> str:
    """The time of day, ``12:04:31``; ``zone`` None is the operator's own."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.astimezone(zone).strftime("%H:%M:%S")


def option(value: OptionValue) -> str:
    """An option's value: ``8,192``, ``0.92``, ``on``, ``off``, ``--``."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return clean(value, 60)


def applies(how: Applies, launch: OptionValue = None, startup_s: float | None = None) -> str:
    """How a change takes effect, short enough for a column: ``live to 1,024``, ``restart ~98s``."""
    if how is Applies.LIVE:
        return "live"
    if how is Applies.LIVE_UP_TO_LAUNCH:
        return f"live to {option(launch)}" if launch is not None else "live to launch"
    if how is Applies.DRAINS:
        return "live, drains"
    return f"restart ~{duration(startup_s)}" if startup_s else "restart"
