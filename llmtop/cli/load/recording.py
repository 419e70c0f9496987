"""The file that a load's requests are written to as they end."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import msgspec

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.export.records import COLUMNS, row
from llmtop.output_file import open_output


def check_name(path: str) -> None:
    """UsageError for a file whose kind is not known by its name."""
    if Path(path).suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path} is neither .csv nor .jsonl", "for example --save run.jsonl")


class Recording:
    """One line a request: JSON lines, or CSV with a head when the name ends in ``.csv``.

    began: unix time of the moment from which records count. A disk that fills up does not end the
    load; ``close`` says so.
    """

    def __init__(self, path: str, began: float | None = None) -> None:
        self._path, self._began = Path(path), time.time() if began is None else began
        self._trouble = ""
        check_name(path)
        try:
            self._file = open_output(self._path)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {(error.strerror or '').lower()}"
            ) from None
        self._csv: Any = csv.writer(self._file) if self._path.suffix == ".csv" else None
        if self._csv is not None:
            self._csv.writerow(COLUMNS)

    def add(self, record: RequestRecord) -> None:
        """Write one request."""
        if self._trouble:
            return
        made = row(record, self._began)
        try:
            if self._csv is not None:
                cells = msgspec.structs.asdict(made)
                cells["itls_s"] = made.itls_s and " ".join(map(str, made.itls_s))
                cells["remarks"] = "|".join(made.remarks)
                self._csv.writerow(cells.values())
            else:
                self._file.write(msgspec.json.encode(made).decode() + "\n")
        except OSError as error:
            self._trouble = (error.strerror or str(error)).lower()

    def close(self) -> None:
        """End it. Raises LlmtopError when not everything could be written."""
        try:
            self._file.close()
        except OSError as error:
            self._trouble = self._trouble or (error.strerror or str(error)).lower()
        if self._trouble:
            raise LlmtopError(f"{self._path} is not complete: {self._trouble}")
