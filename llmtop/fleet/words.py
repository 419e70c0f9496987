"""Texts of instances and groups, for the table on the screen and the printed one."""

from __future__ import annotations

from llmtop.engines.core.samples import Latency
from llmtop.fleet.groups import Group
from llmtop.fleet.instances import Instance
from llmtop.fleet.observer import Table
from llmtop.wording import format as f

HEADS = (
    *("STATE", "INSTANCE", "RUN", "WAIT", "KV", "TTFT p95", "n", "TOK/S", "HITS", "PREEMPT"),
    *("POWER", "$/M tok", "HOST", "DETAIL"),
)
SHARED = "shared"


def cells(one: Instance) -> tuple[str, ...]:
    """The cells of an instance, in the order of HEADS."""
    sample = one.sample
    ttft = sample.latencies.get(Latency.TTFT) if sample is not None else None
    return (
        one.state.value,
        one.instance,
        f.count(sample.running if sample else None),
        f.count(sample.waiting if sample else None),
        f.percent(sample.kv_usage if sample else None),
        f.quantile(ttft.p95 if ttft else None),
        f.count(ttft.n) if ttft else f.ABSENT,
        f.rate(sample.output_tokens_per_s if sample else None),
        f.percent(sample.prefix_hit_rate if sample else None),
        f.count(sample.preemptions if sample else None),
        power(one),
        price(one.dollars_per_million_tokens),
        one.host,
        one.reason,
    )


def power(one: Instance) -> str:
    """The power of an instance's GPUs; ``shared`` if other engines use the GPUs of the host."""
    if one.power_w is None:
        return SHARED if one.shared_power else f.ABSENT
    return f"{one.power_w:.0f}W"


def price(dollars: float | None) -> str:
    """The price of a million tokens."""
    return f.ABSENT if dollars is None else f"{dollars:,.2f}"


def group_words(group: Group) -> str:
    """One line about a group: size, states, sums, and the TTFT percentile of all its requests."""
    states = ", ".join(f"{count} {state}" for state, count in group.states)
    ttft = group.ttft
    p95 = f.quantile(ttft.p95 if ttft else None)
    window = f" n={f.count(ttft.n)}/{f.span(ttft.window_s)}" if ttft else ""
    return (
        f"{group.name}: {group.instances} ({states})  run {f.count(group.running)}"
        f"  wait {f.count(group.waiting)}  KV {f.percent(group.kv_usage)}"
        f"  TTFT p95 {p95}{window}  {f.rate(group.output_tokens_per_s)} tok/s"
        f"  {price(group.dollars_per_million_tokens)} $/M tok"
    )


def age_words(table: Table, now: float) -> str:
    """The age of a table that a failed poll left. now: unix seconds."""
    return f"numbers of {f.duration(max(0.0, now - table.time))} ago"
