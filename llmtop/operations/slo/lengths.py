"""Lengths of prompts and answers, from those that a load sends to those that a forecast draws."""

from __future__ import annotations

from llmtop.forecast.load import Lengths
from llmtop.loadgen.workload.lengths import Lengths as Asked

SHARES = 64  # values that stand for a log-normal distribution


def assumed(asked: Asked) -> Lengths:
    """The lengths that a forecast draws for a load with these."""
    if isinstance(asked, tuple):
        return Lengths.span(*asked)
    shares = ((n + 0.5) / SHARES for n in range(SHARES))
    return Lengths(tuple(max(1, round(asked.quantile(share))) for share in shares))
