"""Several results in one report: a table of all of them, and why some cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import at, items, number, plain
from llmtop.report.percentiles import valid
from llmtop.report.runs import Run
from llmtop.report.setup import engine_words, gpu_words, lengths_words, model_words
from llmtop.wording.format import count, latency, rate

# Fields that must be equal in comparable runs: path in the document, and name in the report.
_SAME = (
    (("setup", "load", "prompts", "prompt_tokens"), "prompt lengths"),
    (("setup", "load", "prompts", "output_tokens"), "answer lengths"),
    (("setup", "load", "prompts", "shared_prefix_tokens"), "common prefix"),
    (("setup", "load", "prompts", "dataset"), "dataset"),
    (("setup", "load", "prompts", "repetitive"), "repetitive prompts"),
    (("setup", "load", "prompts", "ignore_eos"), "whether answers may end early"),
    (("setup", "load", "prompts", "chat"), "chats or completions"),
    (("slo",), "latency limits"),
    (("shape",), "shape of the load"),
)


def differences(runs: Sequence[Run]) -> list[str]:
    """Why the numbers of these runs cannot be compared, one sentence each; [] for none."""
    found = []
    kinds = sorted({run.kind for run in runs})
    if len(kinds) > 1:
        found.append(f"The files hold different kinds of results: {', '.join(kinds)}.")
    for path, name in _SAME:
        values = [at(run.document, *path) for run in runs]
        labelled = [
            f"{run.label}: {lengths_words(value)}"
            for run, value in zip(runs, values, strict=True)
            if value is not None
        ]
        if len({repr(value) for value in values if value is not None}) > 1:
            found.append(f"Not comparable, different {name}: {'; '.join(labelled)}.")
    if any(at(run.document, "setup", "load", "prompts") is None for run in runs):
        found.append("Some files do not record their prompts. Their prompts may differ.")
    if len({run.simulated for run in runs}) > 1:
        found.append("Not comparable: some runs are of a simulated engine.")
    return found


def not_counted(runs: Sequence[Run]) -> list[str]:
    """The levels that the table leaves out, because the load generator may have influenced them."""
    found = []
    for run in runs:
        levels = items(run.document, "levels")
        rejected = [one for one in levels if not valid(one)]
        if rejected:
            streams = ", ".join(count(number(one, "streams")) for one in rejected)
            found.append(
                f"{run.label}: {len(rejected)} of {len(levels)} levels do not count ({streams}"
                " streams). This client may have influenced them."
            )
    return found


def side_by_side(runs: Sequence[Run]) -> Section:
    """The table with one row for each run, and the throughput curves. Nothing is averaged over
    runs."""
    best = [_best(run) for run in runs]
    rows = tuple(
        (run.label, run.kind, engine_words(run), model_words(run), gpu_words(run), *figures)
        for run, figures in zip(runs, best, strict=True)
    )
    columns = ("Run", "Kind", "Engine", "Model", "GPUs", "Streams", "Output tok/s", "TTFT p95",
               "TPOT p95", "n", "Goodput req/s")  # fmt: skip
    table = Table("The runs, each with its highest throughput that counts", columns, rows,
                  frozenset({5, 6, 7, 8, 9, 10}))  # fmt: skip
    words = (*differences(runs), *not_counted(runs))
    return Section("Side by side", paragraphs=words, tables=(table,), charts=_curves(runs))


def _best(run: Run) -> tuple[str, ...]:
    levels = [one for one in items(run.document, "levels") if valid(one)]
    found = max(levels, key=lambda one: number(one, "output_tokens_per_s") or 0.0, default=None)
    found = found if found is not None else run.document
    return (
        count(number(found, "streams")),
        rate(number(found, "output_tokens_per_s")),
        latency(number(found, "ttft_s", "p95")),
        latency(number(found, "tpot_s", "p95")),
        plain(number(found, "ttft_s", "n")),
        rate(number(found, "goodput_per_s")),
    )


def _curves(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """One chart with the throughput curves of all searches; none for fewer than two searches."""
    series: list[Series] = []
    for run in runs:
        points = sorted(
            (streams, tokens)
            for level in items(run.document, "levels")
            if valid(level)
            and (streams := number(level, "streams")) is not None
            and (tokens := number(level, "output_tokens_per_s")) is not None
        )
        if points:
            series.append(Series(run.label, tuple(points), role=f"run{len(series)}"))
    if len(series) < 2:
        return ()
    return (
        Chart(
            "Throughput against streams, all runs",
            "concurrent streams",
            "output tokens per second",
            tuple(series),
            "Throughput curves of " + ", ".join(one.name for one in series) + ".",
            logarithmic_x=True,
        ),
    )
