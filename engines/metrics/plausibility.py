"""Finds impossible values of an engine. They become unknown, and a condition reports them.

The limits are far above the largest engines behind one address: a rack of 72 GPUs generates some
10^6 tokens a second. A larger value is a broken counter or a forged one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from llmtop.engines.core.conditions import Condition, Name, gravest_first
from llmtop.engines.core.samples import EngineSample

# field -> (its name in a message, its largest possible value)
LIMITS: dict[str, tuple[str, float]] = {
    "output_tokens_per_s": ("output tokens/s", 1e8),
    "prompt_tokens_per_s": ("prompt tokens/s", 1e9),  # some engines count cached tokens
    "requests_per_s": ("requests/s", 1e7),
    "preemptions": ("preemptions", 1e9),
    "kv_tokens_total": ("KV tokens", 1e12),
    "kv_tokens_used": ("KV tokens in use", 1e12),
    "prefix_hit_rate": ("prefix hits", 1.01),  # a share; 1 may be rounded up
    "spec_acceptance": ("accepted draft tokens", 1.01),
    "spec_accepted_length": ("tokens a step", 1e4),
}


def plausible(
    sample: EngineSample, gauges: Mapping[str, float] = MappingProxyType({})
) -> EngineSample:
    """The sample with impossible values set to unknown, and a condition that names them.

    gauges: impossible ones that are not in the sample, by their names in a message.
    """
    wrong: dict[str, Any] = {}
    words = [f"{name} {value:.3g}" for name, value in gauges.items()]
    for field, (name, most) in LIMITS.items():
        value = getattr(sample, field)
        if value is not None and not 0 <= value <= most:
            wrong[field] = None
            words.append(f"{name} {value:.3g}")
    if not words:
        return sample
    found = Condition(
        Name.IMPOSSIBLE,
        f"it reports impossible values, which are not shown: {', '.join(words)}",
        "its counters are broken, or a proxy changes them: check its metrics page",
    )
    conditions = gravest_first((*sample.conditions, found))
    return msgspec.structs.replace(sample, **wrong, conditions=conditions)
