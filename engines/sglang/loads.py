"""Step sums that SGLang reports without a plugin: ``GET /v1/loads`` since 0.5.17.

Source: SGLang 0.5.23, managers/load_snapshot.py (``LoadSnapshot``), managers/scheduler.py
(``_record_step_counters``). ``decode_moments`` is [steps, sum of requests, of microseconds, of
requests squared, of requests times microseconds, of tokens]. A decode step counts only if the
previous step was a decode too. SGLang updates the sums every 15 decode steps and at each prefill.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from llmtop.engines.core.adapter import StepSums
from llmtop.engines.core.steps import StepMoments

PATH = "/v1/loads?include=core"
_MOST_RANKS = 1024
_MOST = 1e18


def moments(text: str) -> tuple[StepMoments, ...]:
    """The sums of each data-parallel rank; () if the answer has none. Never raises."""
    try:
        loads = json.loads(text)["loads"][:_MOST_RANKS]
        return tuple(_moments(load) for load in loads if "decode_moments" in load)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def _moments(load: Mapping[str, Any]) -> StepMoments:
    sums = load["decode_moments"]  # null before the first step
    steps, requests, us, squared, requests_us, tokens = map(
        _number, [0] * 6 if sums is None else sums
    )
    return StepMoments(
        time=_number(load["timestamp"]),
        steps=steps,
        requests=requests,
        seconds=us * 1e-6,
        requests_squared=squared,
        requests_seconds=requests_us * 1e-6,
        tokens=tokens,
        prefill_tokens=_number(load.get("total_prefill_uncached_tokens", 0)),
        prefill_s=_number(load.get("total_prefill_busy_us", 0)) * 1e-6,
        rank=int(_number(load.get("dp_rank", 0))),
    )


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("not a number")
    if not math.isfinite(value) or not 0 <= value <= _MOST:
        raise ValueError("an impossible number")
    return float(value)


STEP_SUMS = StepSums(PATH, moments)
