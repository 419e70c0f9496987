"""Filters, sorts and groups the instances of the table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.samples import Latency
from llmtop.fleet.groups import Group, grouped
from llmtop.fleet.instances import ORDER, Id, Instance

PINNED = "pinned"
BY = ("model", "engine", "version", "host", "job", "")


class Order(StrEnum):
    """The sort key within a group: numbers descending, state by urgency, names ascending."""

    STATE = "state"
    REQUESTS = "requests"
    KV = "KV"
    TTFT = "TTFT"
    TOKENS = "tok/s"
    NAME = "name"


class Choice(Struct, frozen=True):
    """The operator's settings of the table. by: the labels to group by. needle: the filter text."""

    order: Order = Order.STATE
    by: tuple[str, ...] = ("model", "engine")
    needle: str = ""
    pinned: frozenset[Id] = frozenset()


# A group heading, an instance, or the heading of the pinned instances (``PINNED``).
Line = Group | Instance | str


def listed(instances: Sequence[Instance], choice: Choice) -> list[Line]:
    """The lines of the table."""
    shown = [one for one in instances if matches(one, choice.needle)]
    pinned = [one for one in shown if one.id in choice.pinned]
    rest = [one for one in shown if one.id not in choice.pinned]
    lines: list[Line] = []
    if pinned:
        lines += [PINNED, *sorted(pinned, key=_key(choice.order))]
    for group, members in grouped(rest, choice.by).items():
        lines += [group, *sorted(members, key=_key(choice.order))]
    return lines


def matches(one: Instance, needle: str) -> bool:
    """Whether any text field of an instance contains the filter text, ignoring case."""
    if not needle:
        return True
    words = (one.instance, one.job, one.host, one.model, one.engine, one.state.value, one.reason)
    return any(needle.lower() in word.lower() for word in words if word)


def _key(order: Order) -> Callable[[Instance], tuple[float, Id]]:
    def key(one: Instance) -> tuple[float, Id]:
        return _rank(order, one), (one.instance, one.job, one.id[2])

    return key


def _rank(order: Order, one: Instance) -> float:
    sample = one.sample
    if order is Order.STATE:
        return ORDER[one.state]
    if order is Order.NAME or sample is None:
        return 0.0 if order is Order.NAME else 1.0
    if order is Order.REQUESTS:
        return -float((sample.running or 0) + (sample.waiting or 0))
    if order is Order.KV:
        return -(sample.kv_usage or 0.0)
    if order is Order.TOKENS:
        return -(sample.output_tokens_per_s or 0.0)
    ttft = sample.latencies.get(Latency.TTFT)
    return -ttft.p95.at_least if ttft is not None and ttft.p95 is not None else 0.0
