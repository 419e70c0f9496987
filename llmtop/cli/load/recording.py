"""``llmtop load --save``: the file with one line per request."""

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
    """Raise UsageError unless the name ends in .csv or .jsonl."""
    if Path(path).suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path} is neither .csv nor .jsonl", "for example --save run.jsonl")


class Recording:
    """Writes one line per request: CSV with a header if the name ends in ``.csv``, else JSON lines.

    began: unix time from which records count (default: now). A full disk does not end the load;
    ``close`` reports it. UsageError when the file cannot be opened.
    """

    def __init__(self, path: str, began: float | None = None) -> None:
        self._path, self._began = Path(path), time.time() if began is None else began
        self._error = ""
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
        if self._error:
            return
        line = row(record, self._began)
        try:
            if self._csv is not None:
                cells = msgspec.structs.asdict(line)
                cells["itls_s"] = line.itls_s and " ".join(map(str, line.itls_s))
                cells["remarks"] = "|".join(line.remarks)
                self._csv.writerow(cells.values())
            else:
                self._file.write(msgspec.json.encode(line).decode() + "\n")
        except OSError as error:
            self._error = (error.strerror or str(error)).lower()

    def close(self) -> None:
        """Close the file. Raises LlmtopError when some requests could not be written."""
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or (error.strerror or str(error)).lower()
        if self._error:
            raise LlmtopError(f"{self._path} is not complete: {self._error}")
