"""The requests of one ``llmtop load`` in the files of other programs."""

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

MOST = 1_000_000  # requests kept: some 300 MB


class RequestExport:
    """Keeps each request while something is to be written of them, and writes it at the end.

    hlog: an HdrHistogram log; bench: ``vllm bench serve``'s JSON; None: not wanted. UsageError at
    once when a file could not be written where it is to be.
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
        """Whether the single gaps of a request will be written."""
        return self._bench is not None

    def add(self, record: RequestRecord) -> None:
        """One request has ended."""
        if (self._hlog or self._bench) and len(self._records) < MOST:
            self._records.append(record)

    def write(self, plan: Plan, target: Target, result: LoadResult) -> None:
        """Write the files that were asked for."""
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
