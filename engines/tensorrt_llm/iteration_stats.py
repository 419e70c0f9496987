"""TensorRT-LLM's /metrics: a queue of iteration statistics, which every read empties.

The server does not keep what was read, so this module sums it up. Source of the statistics:
tensorrt_llm/_torch/pyexecutor/py_executor.py. Each of them may be missing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct, field

from llmtop.engines.core.samples import Counter
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.tensorrt_llm.record import Record, number, part

PATH = "/metrics"

# After a gap in the iterations, sums are omitted until the gap is older than any rate window.
GAP_S = 15.0
# The engine reads the iteration number one step later, with the results. So a number may be skipped
# or repeated.
_STEPS = 2
# Micro-batches can be out of order by less than this. A larger decrease means a new engine process.
_RESTART = 16
_MOST_RANKS = 1024  # bounds the memory that a hostile answer can take


class Occupancy(Struct, frozen=True):
    """The engine's load after its last iteration. kv_usage: 0 to 1. None: unknown."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    kv_tokens_total: int | None = None


class _Rank(Struct):
    """One attention rank; there are several only with data-parallel attention."""

    iteration: float | None = None
    last: Record = field(default_factory=dict)


def decode(text: str) -> list[Record]:
    """The iterations in an answer. ScrapeError if the answer is not a list."""
    try:
        found = msgspec.json.decode(text.encode(errors="replace") or b"[]")
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ScrapeError(
            f"the answer at {PATH} is not TensorRT-LLM's list of iterations",
            "check the URL: is this TensorRT-LLM?",
        )
    return [record for record in found if isinstance(record, dict)]


class Iterations:
    """Sums up the statistics of one engine's iterations."""

    def __init__(self) -> None:
        self._ranks: dict[float, _Rank] = {}
        self._sums: dict[Counter, float] = {}
        self._gap_at: float | None = None

    def add(self, records: list[Record], elapsed: float) -> None:
        """Add the iterations of one answer, oldest first. elapsed: monotonic s."""
        for record in records:
            rank = self._rank(record)
            if rank is None:
                continue
            iteration, before = number(record, "iter"), rank.iteration
            if iteration is not None:
                if before is not None and iteration < before - _RESTART:
                    rank = _Rank()
                    self._ranks, self._sums = {_which(record): rank}, {}
                elif before is not None and iteration > before + _STEPS:
                    self._gap_at = elapsed
                rank.iteration = iteration
            rank.last = record
            for counter, value in _done(record).items():
                self._sums[counter] = self._sums.get(counter, 0.0) + value

    def _rank(self, record: Record) -> _Rank | None:
        which = _which(record)
        if which not in self._ranks and len(self._ranks) < _MOST_RANKS:
            self._ranks[which] = _Rank()
        return self._ranks.get(which)

    def occupancy(self) -> Occupancy:
        """The engine's load after the last iteration that was read, summed over the ranks."""
        last = [rank.last for rank in self._ranks.values()]
        used, most = _total(last, _used_tokens), _total(last, _kv_tokens)
        return Occupancy(
            running=_whole(_total(last, _running)),
            waiting=_whole(_total(last, lambda record: number(record, "numQueuedRequests"))),
            kv_usage=min(used / most, 1.0) if used is not None and most else None,
            kv_tokens_total=_whole(most) or None,
        )

    def totals(self, elapsed: float) -> dict[Counter, float]:
        """Counters since the first read. Sums are omitted for ``GAP_S`` after a gap."""
        found = self._cache()
        if self._gap_at is None or elapsed - self._gap_at > GAP_S:
            found |= self._sums
        return found

    def _cache(self) -> dict[Counter, float]:
        # The engine itself counts these since its start, in blocks.
        last = [rank.last for rank in self._ranks.values()]
        hits = _total(last, lambda record: _kv_blocks(record, "reusedBlocks"))
        missed = _total(last, lambda record: _kv_blocks(record, "missedBlocks"))
        if hits is None or missed is None:
            return {}
        return {Counter.PREFIX_HITS: hits, Counter.PREFIX_QUERIES: hits + missed}


def _done(record: Record) -> dict[Counter, float]:
    """The counts of one iteration."""
    found: dict[Counter, float] = {}
    completed = number(record, "numCompletedRequests")
    batch = part(record, "inflightBatchingStats")
    spec = part(record, "specDecodingStats")
    accepted = number(spec, "numAcceptedTokens") or 0.0
    generating = number(batch, "numGenRequests")
    if generating is not None:
        # Each decoding request gets one token and its accepted drafts. The first token of a request
        # comes from its prefill, which may take several iterations. So it is counted when the
        # request completes.
        found[Counter.OUTPUT_TOKENS] = generating + accepted + (completed or 0.0)
    # In most versions the PyTorch backend always reports 0 here, so 0 means unknown.
    if context := number(batch, "numCtxTokens"):
        found[Counter.PROMPT_TOKENS] = context
    paused = number(batch, "numPausedRequests")
    if paused is not None:
        found[Counter.PREEMPTIONS] = paused
    for counter, name in _SPECULATION.items():
        if (value := number(spec, name)) is not None:
            found[counter] = value
    if completed is not None:
        found[Counter.REQUESTS_OK] = completed
    return found


_SPECULATION = {
    Counter.DRAFTS: "numRequestsWithDraftTokens",
    Counter.DRAFT_TOKENS: "numDraftTokens",
    Counter.ACCEPTED_TOKENS: "numAcceptedTokens",
}


def _which(record: Record) -> float:
    return number(record, "attentionDpRank") or 0.0


def _running(record: Record) -> float | None:
    # Active requests are counted before the iteration, completed ones after it. Without the
    # subtraction, an idle engine would show its last request as running forever.
    active = number(record, "numActiveRequests")
    if active is None:
        return None
    return max(active - (number(record, "numCompletedRequests") or 0.0), 0.0)


def _kv_tokens(record: Record) -> float | None:
    return _kv_blocks(record, "maxNumBlocks")


def _used_tokens(record: Record) -> float | None:
    return _kv_blocks(record, "usedNumBlocks")


def _kv_blocks(record: Record, name: str) -> float | None:
    """A number of KV cache blocks, converted to tokens."""
    kv = part(record, "kvCacheStats")
    blocks, size = number(kv, name), number(kv, "tokensPerBlock")
    return blocks * size if blocks is not None and size else None


def _total(records: list[Record], read: Callable[[Record], float | None]) -> float | None:
    """The sum over the ranks; None if a rank does not report it."""
    values = [read(record) for record in records]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
