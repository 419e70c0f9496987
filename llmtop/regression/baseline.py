"""The baseline of ``llmtop check``: a file with the figures of several runs of one load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtop import LlmtopError
from llmtop.printable import clean
from llmtop.regression.budget import value_path, verdict_path
from llmtop.report.fields import at, items, number, text
from llmtop.report.recorded import SUFFIX, read_recording
from llmtop.report.runs import Run, read_result
from llmtop.values import replace

# The fields of a run that the file stores: those of the budgets, the report, the client's verdict.
_STORED = (
    "requests", "errors", "duration_s", "prompt_tokens", "cached_tokens", "output_tokens",
    "output_tokens_per_s", "requests_per_s", "requests_window_s", "ttft_s", "tpot_s", "itl_s",
    "e2e_s", "tokens_per_chunk", "seed", "client",
)  # fmt: skip


def read_baseline(path: Path) -> Run:
    """The result in a file; of a recording, its newest load.

    Raises LlmtopError where the file cannot be read or holds no such result.
    """
    if path.suffix != SUFFIX:
        return read_result(path)
    loads = [run for run in read_recording(path, path.stem) if run.kind == "load"]
    if not loads:
        raise LlmtopError(
            f"{clean(path.name, 80)} holds no result of a load, so there is nothing to repeat",
            "record one: llmtop load NAME --rate 20 --duration 10s --record FILE",
        )
    return replace(loads[-1], label=clean(path.stem, 40))


def stored_fields(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a load's JSON that a baseline stores."""
    return {name: run[name] for name in _STORED if name in run}


def runs_of(found: Run) -> list[Mapping[str, Any]]:
    """The runs in a result: the runs of a baseline or a check; of a load, the load itself."""
    if found.kind == "load":
        return [found.document]
    return items(found.document, "runs")


def load_of(found: Run) -> Mapping[str, Any]:
    """The description of the load that the runs sent (``setup.load``).

    Raises LlmtopError where the file does not record it, so that it cannot be repeated.
    """
    sent = at(found.document, "setup", "load")
    if not isinstance(sent, Mapping) or not text(found.document, "setup", "load", "shape"):
        raise LlmtopError(
            "the baseline does not record its load, so it cannot be repeated",
            "make one with: llmtop check NAME --write-baseline FILE, or llmtop load --json",
        )
    return sent


def values(runs: Sequence[Mapping[str, Any]], measure: str) -> list[float]:
    """The values of a measure that count: above 0, with a valid verdict of the client."""
    found = []
    for run in runs:
        value = number(run, *value_path(measure))
        if value is not None and value > 0 and counts(run, measure):
            found.append(value)
    return found


def counts(run: Mapping[str, Any], measure: str) -> bool:
    """Whether a measure of a run counts: the client's verdict on it is valid or missing."""
    path = verdict_path(measure)
    return path is None or at(run, *path) is not False


def pairs(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], measure: str
) -> list[tuple[float, float]]:
    """The values (old, new) of the pairs in which both runs count."""
    found = []
    for one, other in zip(old, new, strict=False):
        both = (*values([one], measure), *values([other], measure))
        if len(both) == 2:
            found.append((both[0], both[1]))
    return found
