"""Formats values as the screen shows them. Pure: no widget, no colour, no clock.

``--`` means not known; zero is a real zero.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from llmtop.engines.core.options import Applies, OptionValue
from llmtop.engines.core.samples import Quantile, Quantiles
from llmtop.printable import clean as clean  # exported: the screen uses it like the other formats

ABSENT = "--"
GIB = 2**30

_FIGURES = "0123456789."


def count(value: float | None) -> str:
    """A count: ``6,618``; ``607k`` for 100,000 and more."""
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
    """At most four digits with k, M or G: ``920``, ``8k``, ``27.1k``, ``607k``, ``1.2M``."""
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
    """A share 0..1: ``66%``. Below 1 % it has one decimal, so that a small share is not ``0%``."""
    if share is None:
        return ABSENT
    if 0 < share < 0.00995:
        return f"{max(share * 100, 0.1):.1f}%"
    return f"{share * 100:.0f}%"


def latency(seconds: float | None) -> str:
    """A latency: ``0``, ``20us``, ``8.2ms``, ``180ms``, ``1.91s``, ``12.3s``, ``2m05s``."""
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
    """A quantile, or its range or bound: ``412ms``, ``5-10s``, ``<300ms``, ``>80s``."""
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
    """A quantile that the engine reports, with its error: ``412ms±1%``.

    Without a known error it is formatted as by ``quantile``.
    """
    known = found.exact is not None and value is not None
    return f"{quantile(value)}±{percent(found.exact)}" if known else quantile(value)


def _bound(seconds: float | None) -> str:
    """The bound of a bucket. It is a round number, so a decimal 0 is removed."""
    return latency(seconds).replace(".0ms", "ms")


def duration(seconds: float | None) -> str:
    """A duration: ``0s``, ``42s``, ``2m05s``, ``1h12m``, ``3d04h``."""
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
    """The time of day, ``12:04:31``. time: unix seconds. zone: None for the local time zone."""
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
    """How a change takes effect, for a narrow column: ``live to 1,024``, ``restart ~98s``.

    launch: the value at launch, the limit of a live change. startup_s: expected start-up time.
    """
    if how is Applies.LIVE:
        return "live"
    if how is Applies.LIVE_UP_TO_LAUNCH:
        return f"live to {option(launch)}" if launch is not None else "live to launch"
    if how is Applies.DRAINS:
        return "live, drains"
    return f"restart ~{duration(startup_s)}" if startup_s else "restart"
