"""Totals over the steps of one engine since the exporter began."""

from __future__ import annotations

from llmtop.engines.core.steps import Step, Steps


class StepTotals:
    """Sums steps by kind: (seconds, count). A restart of the engine does not reset the totals."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, int]] = {}
        self.host_gap_s: float | None = None
        self.idle_s: float | None = None
        self.refused: int | None = None
        self.preempted: int | None = None
        self.lost = 0

    def add(self, found: Steps) -> None:
        """Add new steps."""
        self.lost += found.lost
        for step in found.steps:
            kind = kind_of(step)
            seconds, count = self.steps.get(kind, (0.0, 0))
            self.steps[kind] = seconds + max(0.0, step.duration_s), count + 1
            self.host_gap_s = _added(self.host_gap_s, step.host_gap_s)
            self.idle_s = _added(self.idle_s, step.idle_s)
            if step.refused is not None:
                self.refused = (self.refused or 0) + step.refused
            if step.preempted is not None:
                self.preempted = (self.preempted or 0) + step.preempted


def kind_of(step: Step) -> str:
    """The kind of a step by what it computed: prefill, decode, mixed, or empty."""
    if step.prefill_tokens and step.decode_tokens:
        return "mixed"
    if step.prefill_tokens:
        return "prefill"
    return "decode" if step.decode_tokens else "empty"


def _added(total: float | None, more: float | None) -> float | None:
    return total if more is None else (total or 0.0) + max(0.0, more)
