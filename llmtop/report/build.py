"""Builds a report from saved results: the answer first, then the sections of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmtop.report.check import check_sections
from llmtop.report.comparison import (
    comparison_cautions,
    comparison_sections,
    load_cautions,
    load_sections,
)
from llmtop.report.document import Report, Section
from llmtop.report.fields import number, text
from llmtop.report.hold import hold_cautions, hold_sections
from llmtop.report.runs import Run
from llmtop.report.saturation import saturation_cautions, saturation_sections
from llmtop.report.setup import setup_section
from llmtop.report.side_by_side import differences, side_by_side
from llmtop.report.timeline import recording_cautions, recording_sections
from llmtop.report.tuning import tuning_cautions, tuning_sections
from llmtop.wording.format import latency, rate

SIMULATED = "The engine is simulated. Nothing here was measured on real hardware."


def build(runs: Sequence[Run], made_at: float) -> Report:
    """The report of one or several runs. made_at: unix seconds."""
    sections: list[Section] = []
    cautions = [SIMULATED] if any(run.simulated for run in runs) else []
    # A recording and the result of the load in it are one run.
    compared = [run for run in runs if run.kind != "recording"] or runs
    if len(compared) > 1:
        cautions += differences(compared)
        sections.append(side_by_side(compared))
    for run in runs:
        several = len(runs) > 1
        cautions += [f"{run.label}: {one}" if several else one for one in _cautions(run)]
        sections += _sections(run)
        sections.append(setup_section(run, f"Setup: {run.label}"))
    title = ", ".join(dict.fromkeys(_title(run) for run in runs))
    return Report(title, answer(runs), tuple(cautions), tuple(sections), made_at)


def answer(runs: Sequence[Run]) -> str:
    """The result in one sentence. For several runs: one sentence for each, with its label."""
    if len(runs) == 1:
        return _answer(runs[0])
    return " ".join(f"{run.label}: {_answer(run).removesuffix('.')}." for run in runs)


def _answer(run: Run) -> str:
    if run.summary:
        return run.summary
    if run.kind != "load":
        return f"{_title(run)}: the file does not hold the result in one sentence."
    tokens, ttft = (
        number(run.document, "output_tokens_per_s"),
        number(run.document, "ttft_s", "p95"),
    )
    ok = number(run.document, "requests", "ok") or 0
    return (
        f"{rate(tokens)} output tokens per second over {ok:,.0f} answered requests,"
        f" TTFT p95 {latency(ttft)}."
    )


def _title(run: Run) -> str:
    names = {
        "saturation": "Saturation of",
        "comparison": "Comparison on",
        "load": "Load on",
        "tuning": "Tuning of",
        "hold": "Held SLO on",
        "check": "Check of",
        "baseline": "Baseline of",
        "recording": "Recording of",
    }
    engine = text(run.document, "name") or text(run.document, "a", "name") or "engine"
    return f"{names[run.kind]} {engine}"


# By kind of result: the function that builds its sections, and the one that lists its cautions.
_KINDS: dict[str, tuple[Callable[[Run], list[Section]], Callable[[Run], list[str]]]] = {
    "saturation": (saturation_sections, saturation_cautions),
    "comparison": (comparison_sections, comparison_cautions),
    "load": (load_sections, load_cautions),
    "tuning": (tuning_sections, tuning_cautions),
    "hold": (hold_sections, hold_cautions),
    "check": (check_sections, lambda run: []),
    "baseline": (check_sections, lambda run: []),
    "recording": (recording_sections, recording_cautions),
}


def _sections(run: Run) -> list[Section]:
    return _KINDS[run.kind][0](run)


def _cautions(run: Run) -> list[str]:
    return _KINDS[run.kind][1](run)
