"""The requests of one ``llmtop load`` in file formats of other programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from llmtop.cli.common.output import note
from llmtop.cli.load.saving import check, dumps, write
from llmtop.loadgen.core.results import LoadResult, RequestRecord
from llmtop.loadgen.export.formats import bench_run, seconds_log
from llmtop.loadgen.workload.plan import Loop, Plan, Target
from llmtop.loadgen.workload.shape import parse

MOST = 1_000_000  # requests kept in memory, about 300 MB


class RequestExport:
    """Keeps the requests if a file needs them, and writes the files at the end.

    hlog: path of an HdrHistogram log. bench: path of a JSON file as ``vllm bench serve`` writes it.
    None: no such file. UsageError when the folder of a file is missing.
    """

    def __init__(
        self, hlog: str | None, bench: str | None, clock: Callable[[], float] = time.time
    ) -> None:
        check([path for path in (hlog, bench) if path is not None])
        self._hlog, self._bench = hlog, bench
        self._begun, self._at = clock(), datetime.now()
        self._records: list[RequestRecord] = []

    @property
    def detailed(self) -> bool:
        """Whether the file needs each gap between chunks of a request."""
        return self._bench is not None

    def add(self, record: RequestRecord) -> None:
        """Keep a request that has ended."""
        if (self._hlog or self._bench) and len(self._records) < MOST:
            self._records.append(record)

    def write(self, plan: Plan, target: Target, result: LoadResult) -> None:
        """Write the files. Raises LlmtopError when a file cannot be written."""
        if len(self._records) >= MOST:
            note(f"only the first {MOST:,} requests are in the files")
        if self._hlog:
            write(Path(self._hlog), seconds_log(self._records, start=self._begun))
        if self._bench:
            closed = plan.loop is Loop.CLOSED
            highest = parse(plan.shape).highest
            document = bench_run(
                self._records,
                seconds=result.duration_s,
                model=target.model,
                chat=target.chat,
                at=self._at,
                itl=result.itl,
                verdict=result.health.verdict,
                output_tokens_per_s=result.output_tokens_per_s or 0.0,
                streams=round(highest) if closed else None,
                rate=None if closed else highest,
            )
            write(Path(self._bench), dumps(document))
