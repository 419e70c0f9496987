"""Reads saved results for a report. One file is one run."""

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
    """One saved result. kind: one of ``KINDS``, or "recording". label: its name in the report.

    document: the JSON object, unchecked; read it with ``report.fields``.
    """

    kind: str
    label: str
    document: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The result in one sentence, as the command wrote it; "" where it wrote none."""
        return text(self.document, "summary")

    @property
    def simulated(self) -> bool:
        """Whether a simulated engine was measured."""
        return self.document.get("simulated") is True


def kind_of(document: Mapping[str, Any]) -> str | None:
    """The kind of a result, None for no known kind. The JSON of a load has no field ``kind``; its
    other fields identify it."""
    kind = document.get("kind")
    if isinstance(kind, str):
        return kind if kind in KINDS else None
    if (
        isinstance(document.get("requests"), Mapping)
        and "loop" in document
        and "ttft_s" in document
    ):
        return "load"
    return None


def read_result(path: Path, label: str = "") -> Run:
    """The result in a file. label: "" for the name of the file. Raises LlmtopError when the file
    cannot be read, is too large, or holds no result."""
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
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise LlmtopError(
            f"{name} is not JSON", "give a file that --json or --save FILE.json wrote"
        ) from None
    kind = kind_of(document) if isinstance(document, dict) else None
    if kind is None:
        raise LlmtopError(
            f"{name} holds no result that a report can show",
            "a report reads the JSON of load, saturate, compare, tune, hold and check",
        )
    return Run(kind, label or clean(path.stem, 40) or name, document)
