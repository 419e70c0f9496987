"""Saved results as a report reads them: one file, one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from llmtop import LlmtopError
from llmtop.printable import clean
from llmtop.report.fields import text

SIZE_LIMIT = 64 * 1024 * 1024  # a comparison of 200 pairs takes 2 MB
KINDS = ("saturation", "comparison", "load", "tuning", "hold", "check", "baseline")


class Run(Struct, frozen=True):
    """One saved result. label: its name among the others. found: its document."""

    kind: str
    label: str
    found: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The result in one sentence, as the command wrote it; "" where it wrote none."""
        return text(self.found, "summary")

    @property
    def simulated(self) -> bool:
        """Whether a simulated engine was measured."""
        return self.found.get("simulated") is True


def kind_of(found: Mapping[str, Any]) -> str | None:
    """The kind of a result; the JSON of a load has no ``kind``."""
    kind = found.get("kind")
    if isinstance(kind, str):
        return kind if kind in KINDS else None
    if isinstance(found.get("requests"), Mapping) and "loop" in found and "ttft_s" in found:
        return "load"
    return None


def read_result(path: Path, label: str = "") -> Run:
    """The result in a file. Raises LlmtopError with one clear line when it is none."""
    name = clean(path.name, 80)
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise LlmtopError(
            f"{clean(str(path), 200)} cannot be read: {error.strerror}",
            "give a file that --json or --save FILE.json wrote",
        ) from None
    if len(data) > SIZE_LIMIT:
        raise LlmtopError(f"{name} is larger than 64 MiB", "give the JSON of one result")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise LlmtopError(
            f"{name} is not JSON", "give a file that --json or --save FILE.json wrote"
        ) from None
    kind = kind_of(found) if isinstance(found, dict) else None
    if kind is None:
        raise LlmtopError(
            f"{name} holds no result that a report can show",
            "a report reads the JSON of load, saturate, compare, tune, hold and check",
        )
    return Run(kind, label or clean(path.stem, 40) or name, found)
