"""The sections of a paired comparison, and of a load."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import entries, flag, items, number, plain, text, whole
from llmtop.report.percentiles import failures, latency_table, verdict
from llmtop.report.runs import Run
from llmtop.wording.format import count, latency, percent, rate

METHOD = (
    "Both settings ran in turn, A B B A, under the same load. One run is one value."
    " The interval is a paired t interval on the logarithm of B / A."
    " All intervals together hold with a probability of 95 %."
)
NAMES = {
    "output_tokens_per_s": "Output tok/s",
    "ttft_p50_s": "TTFT p50",
    "ttft_p95_s": "TTFT p95",
    "tpot_p50_s": "TPOT p50",
    "goodput_per_s": "Goodput req/s",
}


def comparison_sections(run: Run) -> list[Section]:
    """The change of each measure from A to B with its interval, and every pair of runs."""
    findings = items(run.document, "findings")
    sides = tuple(
        (
            side.upper(),
            text(run.document, side, "label") or text(run.document, side, "name") or "--",
        )
        for side in ("a", "b")
    )
    streams = count(number(run.document, "streams"))
    return [
        Section(
            f"Comparison: {run.label}",
            paragraphs=(METHOD, f"{streams} concurrent streams."),
            facts=sides,
            tables=(_findings(findings),),
            charts=(_ratios(run, findings),),
        ),
        Section(f"Pairs: {run.label}", tables=(_pairs(run),)),
    ]


def comparison_cautions(run: Run) -> list[str]:
    """What limits the use of a comparison."""
    found = []
    if flag(run.document, "complete") is False:
        found.append("The comparison ended early.")
    if left := whole(run.document, "pairs_left_out"):
        found.append(f"{left:,} pairs do not count: this client was the limit.")
    return found


def load_sections(run: Run) -> list[Section]:
    """Percentiles and outcomes of one load."""
    document = run.document
    facts = [
        ("Requests", f"{count(number(document, 'requests', 'ok'))} answered"),
        ("Not answered", failures(document) or "none"),
        ("Output tok/s", rate(number(document, "output_tokens_per_s"))),
        ("Requests a second", rate(number(document, "requests_per_s"))),
        ("Duration", f"{plain(number(document, 'duration_s'))} s"),
        ("Client", verdict(document)),
    ]
    cached, prompt = number(document, "cached_tokens"), number(document, "prompt_tokens")
    if cached is not None and prompt:
        facts.append(("Prompt tokens from the prefix cache", percent(cached / prompt)))
    errors = tuple((f"{many:,g} x", reason) for reason, many in _errors(document))
    tables = [latency_table(document, "Latencies, as this client measured them")]
    if errors:
        tables.append(Table("Errors", ("Requests", "Reason"), errors))
    return [Section(f"Load: {run.label}", facts=tuple(facts), tables=tuple(tables))]


def load_cautions(run: Run) -> list[str]:
    """What limits the use of a load's figures."""
    found = []
    if flag(run.document, "oversaturated"):
        found.append("The load was higher than the engine could serve. Latencies grew with time.")
    ok, failed = number(run.document, "requests", "ok"), number(run.document, "requests", "failed")
    if ok is not None and failed and failed > ok:
        found.append("More than half of the requests failed.")
    repeated = number(run.document, "repeated_prompts", "cached_share")
    if repeated:
        found.append(f"Prompts were repeated: {percent(repeated)} of their tokens were cached.")
    return found


def _errors(document: Any) -> list[tuple[str, float]]:
    return [
        (reason, float(many))
        for reason, many in entries(document, "errors")
        if isinstance(many, int) and not isinstance(many, bool)
    ]


def _value(measure: str, value: float | None) -> str:
    return latency(value) if measure.endswith("_s") and "per_s" not in measure else rate(value)


def _findings(findings: list[Any]) -> Table:
    rows = []
    for one in findings:
        measure = text(one, "measure")
        low, high = number(one, "low"), number(one, "high")
        noise = number(one, "noise_ratio")
        rows.append(
            (
                NAMES.get(measure, measure),
                _value(measure, number(one, "a")),
                _value(measure, number(one, "b")),
                change(number(one, "ratio")),
                f"{change(low)} to {change(high)}" if low is not None else "--",
                f"± {percent(noise - 1)}" if noise is not None and noise >= 1 else "--",
                count(number(one, "pairs")),
                text(one, "verdict") or "--",
            )
        )
    columns = ("Measure", "A", "B", "B against A", "95 % interval", "Noise, A with A", "Pairs",
               "B is")  # fmt: skip
    return Table("B against A, by measure", columns, tuple(rows), frozenset(range(1, 7)))


def change(ratio: float | None) -> str:
    """A ratio as a change in percent: ``+12.0 %`` for 1.12; ``--`` for unknown."""
    return "--" if ratio is None else f"{(ratio - 1) * 100:+.1f} %"


def _ratios(run: Run, findings: list[Any]) -> Chart:
    """The change of each measure from A to B with its interval. The line at 0 means no change."""
    points, spans, words = [], [], []
    for index, one in enumerate(findings, 1):
        ratio, low, high = (number(one, name) for name in ("ratio", "low", "high"))
        name = NAMES.get(text(one, "measure"), text(one, "measure"))
        if ratio is not None:
            points.append((float(index), (ratio - 1) * 100))
            words.append(f"{index} {name} {change(ratio)}")
            if low is not None and high is not None:
                spans.append((float(index), (low - 1) * 100, (high - 1) * 100))
    zero = Series("no change", ((0.5, 0.0), (len(findings) + 0.5, 0.0)), role="limit")
    changes = Series("B against A, %", tuple(points), tuple(spans), "dots")
    return Chart(
        f"B against A with 95 % intervals, {run.label}",
        "measure: " + ", ".join(words),
        "change, %",
        (changes, zero),
        "Change of B against A: " + ", ".join(words) + ".",
    )


def _pairs(run: Run) -> Table:
    rows = []
    for index, pair in enumerate(items(run.document, "pairs"), 1):
        runs = items(pair, "runs")
        order = text(pair, "order", limit=8)
        counted = flag(pair, "counted")
        note = "noise" if flag(pair, "noise") else "counts" if counted else "rejected"
        for arm, one in zip(order, runs, strict=False):
            rows.append(
                (
                    str(index),
                    note,
                    arm,
                    rate(number(one, "output_tokens_per_s")),
                    latency(number(one, "ttft_s", "p50")),
                    latency(number(one, "ttft_s", "p95")),
                    latency(number(one, "tpot_s", "p50")),
                    count(number(one, "ttft_s", "n")),
                )
            )
    columns = ("Pair", "Use", "Side", "Output tok/s", "TTFT p50", "TTFT p95", "TPOT p50", "n")
    return Table("Every run, in order", columns, tuple(rows), frozenset({0, 3, 4, 5, 6, 7}))
