"""The file that ``llmtop check`` compares with: the figures of several runs of one load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtop import LlmtopError
from llmtop.printable import clean
from llmtop.regression.budget import place_of, verdict_place
from llmtop.report.fields import at, items, number, text
from llmtop.report.recorded import SUFFIX, read_recording
from llmtop.report.runs import Run, read_result
from llmtop.values import replace

# What a run keeps in the file: enough for every budget, the report and the client's verdict.
_KEPT = (
    "requests", "errors", "duration_s", "prompt_tokens", "cached_tokens", "output_tokens",
    "output_tokens_per_s", "requests_per_s", "requests_window_s", "ttft_s", "tpot_s", "itl_s",
    "e2e_s", "tokens_per_chunk", "seed", "client",
)  # fmt: skip


def read_baseline(path: Path) -> Run:
    """The result in a file, of a recording its newest load. Raises LlmtopError."""
    if path.suffix != SUFFIX:
        return read_result(path)
    loads = [run for run in read_recording(path, path.stem) if run.kind == "load"]
    if not loads:
        raise LlmtopError(
            f"{clean(path.name, 80)} holds no result of a load, so there is nothing to repeat",
            "record one: llmtop load NAME --rate 20 --duration 10s --record FILE",
        )
    return replace(loads[-1], label=clean(path.stem, 40))


def kept(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of one load's JSON that a baseline keeps."""
    return {name: run[name] for name in _KEPT if name in run}


def runs_of(found: Run) -> list[Mapping[str, Any]]:
    """The runs in a file: of a baseline or a check its runs, of a load the load itself."""
    if found.kind == "load":
        return [found.document]
    return items(found.document, "runs")


def load_of(found: Run) -> Mapping[str, Any]:
    """The load that the file recorded. Raises LlmtopError when it cannot be repeated."""
    sent = at(found.document, "setup", "load")
    if not isinstance(sent, Mapping) or not text(found.document, "setup", "load", "shape"):
        raise LlmtopError(
            "the baseline does not record its load, so it cannot be repeated",
            "make one with: llmtop check NAME --write-baseline FILE, or llmtop load --json",
        )
    return sent


def values(runs: Sequence[Mapping[str, Any]], measure: str) -> list[float]:
    """The values of a measure that count: this client did not move them, and they are above 0."""
    found = []
    for run in runs:
        value = number(run, *place_of(measure))
        if value is not None and value > 0 and counts(run, measure):
            found.append(value)
    return found


def counts(run: Mapping[str, Any], measure: str) -> bool:
    """Whether the client's verdict on this measure of a run is valid."""
    place = verdict_place(measure)
    return place is None or at(run, *place) is not False


def pairs(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], measure: str
) -> list[tuple[float, float]]:
    """(old, new) of the pairs in which both runs count."""
    found = []
    for one, other in zip(old, new, strict=False):
        both = (*values([one], measure), *values([other], measure))
        if len(both) == 2:
            found.append((both[0], both[1]))
    return found
