"""Instances and groups as JSON documents. docs/reference/json.md describes the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmtop.cli.engines.once import quantiles
from llmtop.engines.core.samples import EngineSample, Latency
from llmtop.fleet.groups import Group, grouped
from llmtop.fleet.instances import Instance
from llmtop.fleet.observer import Table


def entry(table: Table, instances: Sequence[Instance], by: Sequence[str]) -> dict[str, Any]:
    """One table as ``fleet --once --json`` prints it. by: labels that form groups."""
    return {
        "time": table.time,
        "trouble": table.trouble or None,
        "instances": [instance_entry(one) for one in instances],
        "groups": [group_entry(one) for one in grouped(instances, by)],
    }


def instance_entry(one: Instance) -> dict[str, Any]:
    """One instance as JSON. The numbers of an instance without a sample are null."""
    sample = one.sample or EngineSample(time=0.0, window_s=0.0)
    return {
        "instance": one.instance,
        "job": one.job,
        "host": one.host,
        "engine": one.engine,
        "simulated": one.engine == "sim",
        "model": one.model,
        "version": one.version,
        "state": one.state.value,
        "reason": one.reason or None,
        "age_s": one.age_s,
        "running": sample.running,
        "waiting": sample.waiting,
        "kv_usage": sample.kv_usage,
        "output_tokens_per_s": sample.output_tokens_per_s,
        "rate_window_s": sample.rate_window_s,
        "ttft_s": quantiles(sample.latencies.get(Latency.TTFT), sample.window_s),
        "prefix_hit_rate": sample.prefix_hit_rate,
        "preemptions": sample.preemptions,
        "power_w": one.power_w,
        "power_shared": one.shared_power,
        "gpus": one.gpus,
        "dollars_per_million_tokens": one.dollars_per_million_tokens,
        "conditions": [
            {"name": found.name.value, "message": found.message, "hint": found.hint}
            for found in sample.conditions
        ],
    }


def group_entry(one: Group) -> dict[str, Any]:
    """One group as JSON. Its percentiles come from the summed buckets of its instances."""
    return {
        **dict(one.keys),
        "instances": one.instances,
        "states": dict(one.states),
        "running": one.running,
        "waiting": one.waiting,
        "kv_usage": one.kv_usage,
        "output_tokens_per_s": one.output_tokens_per_s,
        "ttft_s": quantiles(one.ttft, 0.0),
        "power_w": one.power_w,
        "dollars_per_million_tokens": one.dollars_per_million_tokens,
        "imbalance": list(one.imbalance),
    }
