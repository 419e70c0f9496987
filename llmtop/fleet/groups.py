"""Groups of instances: sums, percentiles of summed buckets, and uneven load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from msgspec import Struct

from llmtop.engines.core.conditions import UNEVEN
from llmtop.engines.core.samples import Quantiles
from llmtop.engines.metrics.histograms import merge, summary
from llmtop.fleet.instances import Instance, State, per_million

BY = ("model", "engine", "version", "host", "job")
UNKNOWN = "--"
# An instance is uneven if it has this many times the requests of the median, and also this many
# more: 2 requests against 1 are no finding.
UNEVEN_RATIO = 2.0
UNEVEN_REQUESTS = 8


class Group(Struct, frozen=True):
    """Instances with the same values of some keys. None: no instance reports this.

    keys: the names of the keys and their values. ttft: of all requests in the window, from the sum
    of the buckets; if the buckets of instances differ, the bounds that all have are used.
    dollars_per_million_tokens: price of all GPUs over tokens of all instances; None if the GPUs of
    one are not known. imbalance: findings about uneven load, as text.
    """

    keys: tuple[tuple[str, str], ...]
    instances: int
    states: tuple[tuple[str, int], ...]
    running: int | None
    waiting: int | None
    kv_usage: float | None
    output_tokens_per_s: float | None
    ttft: Quantiles | None
    power_w: float | None
    dollars_per_million_tokens: float | None
    imbalance: tuple[str, ...]

    @property
    def name(self) -> str:
        """The values of the keys, joined; ``all`` without keys."""
        return " · ".join(text for _, text in self.keys) or "all"


def grouped(instances: Iterable[Instance], by: Sequence[str]) -> dict[Group, list[Instance]]:
    """The instances grouped by the attributes ``by``, the largest group first."""
    found: dict[tuple[str, ...], list[Instance]] = {}
    for one in instances:
        key = tuple(str(getattr(one, name) or UNKNOWN) for name in by)
        found.setdefault(key, []).append(one)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return {group(tuple(zip(by, key, strict=True)), members): members for key, members in ordered}


def group(keys: tuple[tuple[str, str], ...], members: Sequence[Instance]) -> Group:
    """One group. Only instances with fresh metrics count in sums and percentiles."""
    fresh = [one for one in members if one.fresh]
    counts = Counter(one.state for one in members)
    parts = [one for one in fresh if one.ttft is not None]
    summed = merge(one.ttft for one in parts if one.ttft is not None)
    window_s = max((one.ttft_window_s for one in parts), default=0.0)
    return Group(
        keys=keys,
        instances=len(members),
        states=tuple((state.value, counts[state]) for state in State if counts[state]),
        running=_sum_whole(fresh, "running"),
        waiting=_sum_whole(fresh, "waiting"),
        kv_usage=_mean(fresh, "kv_usage"),
        output_tokens_per_s=_sum(fresh, "output_tokens_per_s"),
        ttft=summary(summed, window_s) if summed is not None else None,
        power_w=_power(members),
        dollars_per_million_tokens=_price(fresh),
        imbalance=imbalance(fresh),
    )


def imbalance(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Findings about uneven load of instances that serve the same model: requests, KV, queues."""
    found = []
    for (_, model), same in _grouped(instances, lambda one: (one.engine, one.model)).items():
        if len(same) < 2 or model is None:
            continue
        found += _uneven_requests(same) + _uneven_kv(same) + _uneven_queues(same)
    return tuple(found)


def _uneven_requests(same: Sequence[Instance]) -> list[str]:
    load = [(_requests(one), one) for one in same if _requests(one) is not None]
    if len(load) < 2:
        return []
    counts = [count for count, _ in load if count is not None]
    usual = median(counts)
    most, busiest = max(load, key=lambda pair: pair[0] or 0)
    assert most is not None
    if len(load) == 2:
        usual = min(counts)
    if most - usual < UNEVEN_REQUESTS or most < UNEVEN_RATIO * usual:
        return []
    word = "the other has" if len(load) == 2 else "the median is"
    return [f"uneven: {busiest.instance} has {most:,} requests, {word} {usual:,.0f}"]


def _uneven_kv(same: Sequence[Instance]) -> list[str]:
    usage = [
        (one.sample.kv_usage, one)
        for one in same
        if one.sample is not None and one.sample.kv_usage is not None
    ]
    if len(usage) < 2:
        return []
    mean = sum(share for share, _ in usage) / len(usage)
    fullest, which = max(usage, key=lambda pair: pair[0])
    if fullest - mean < UNEVEN:
        return []
    return [f"uneven: KV cache of {which.instance} {fullest:.0%}, the mean is {mean:.0%}"]


def _uneven_queues(same: Sequence[Instance]) -> list[str]:
    waiting = [(one.sample.waiting or 0, one) for one in same if one.sample is not None]
    most, queued = max(waiting, key=lambda pair: pair[0], default=(0, same[0]))
    idle = [one for count, one in waiting if count == 0 and one.sample and not one.sample.running]
    if most < 1 or not idle:
        return []
    return [f"uneven: {most:,} requests wait at {queued.instance}, {idle[0].instance} is idle"]


def _requests(one: Instance) -> int | None:
    sample = one.sample
    if sample is None or sample.running is None:
        return None
    return sample.running + (sample.waiting or 0)


def _grouped(
    instances: Iterable[Instance], key: Callable[[Instance], tuple[str, str | None]]
) -> dict[tuple[str, str | None], list[Instance]]:
    found: dict[tuple[str, str | None], list[Instance]] = {}
    for one in instances:
        found.setdefault(key(one), []).append(one)
    return found


def _known(instances: Iterable[Instance], field: str) -> list[float]:
    values = (getattr(one.sample, field) for one in instances if one.sample is not None)
    return [value for value in values if value is not None]


def _sum(instances: Iterable[Instance], field: str) -> float | None:
    known = _known(instances, field)
    return sum(known) if known else None


def _sum_whole(instances: Iterable[Instance], field: str) -> int | None:
    total = _sum(instances, field)
    return None if total is None else round(total)


def _mean(instances: Iterable[Instance], field: str) -> float | None:
    known = _known(instances, field)
    return sum(known) / len(known) if known else None


def _power(members: Sequence[Instance]) -> float | None:
    known = [one.power_w for one in members if one.power_w is not None]
    return sum(known) if known else None


def _price(fresh: Sequence[Instance]) -> float | None:
    """The price of a million tokens. The GPUs of idle instances count too."""
    known = [one.dollars_per_hour for one in fresh if one.dollars_per_hour is not None]
    if len(known) < len(fresh):
        return None
    return per_million(sum(known), _sum(fresh, "output_tokens_per_s"))
