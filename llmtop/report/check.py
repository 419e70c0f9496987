"""The sections of a check against a baseline."""

from __future__ import annotations

from llmtop.report.comparison import change
from llmtop.report.document import Section, Table
from llmtop.report.fields import flag, items, number, text
from llmtop.report.percentiles import latency_table
from llmtop.report.runs import Run
from llmtop.wording.format import count, latency, percent, rate

IN_TURN = "The engine of the baseline and this one ran in turn. Intervals are paired."
RECORDED = "The new runs are compared with recorded runs. Intervals are Welch's."


def check_sections(run: Run) -> list[Section]:
    """The measures with their budgets, and the latencies of every run. Also for a baseline, which
    has runs only."""
    document = run.document
    rows = []
    for one in items(document, "measures"):
        name, noise = text(one, "measure"), number(one, "noise_ratio")
        shown = rate if name in ("tok_s", "req_s") else latency
        low, high = number(one, "low"), number(one, "high")
        rows.append(
            (
                text(one, "budget"),
                shown(number(one, "baseline")),
                shown(number(one, "now")),
                change(number(one, "ratio")),
                f"{change(low)} to {change(high)}" if low is not None else "--",
                f"± {percent(noise - 1)}" if noise is not None and noise >= 1 else "--",
                f"{count(number(one, 'baseline_runs'))} and {count(number(one, 'runs'))}",
                text(one, "verdict"),
            )
        )
    columns = ("Budget", "Baseline", "Now", "Change", "Interval", "Noise of a run", "Runs",
               "Verdict")  # fmt: skip
    measures = Table("Each measure against its budget", columns, tuple(rows),
                     frozenset(range(1, 7)))  # fmt: skip
    words = (IN_TURN if flag(document, "in_turn") else RECORDED,) if rows else ()
    tables: tuple[Table, ...] = (measures,) if rows else ()
    sections = [Section(f"Check: {run.label}", paragraphs=words, tables=tables)]
    for name, title in (("baseline_runs", "Runs of the baseline"), ("runs", "Runs of this engine")):
        if runs := items(document, name):
            tables = tuple(
                latency_table(one, f"Run {index}: {rate(number(one, 'output_tokens_per_s'))} tok/s")
                for index, one in enumerate(runs, 1)
            )
            sections.append(Section(f"{title}: {run.label}", tables=tables))
    return sections
