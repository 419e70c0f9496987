"""TensorRT-LLM's /metrics: a queue of what each iteration did, which every reading empties.

What was read is gone, so what the iterations did is added up here. Each statistic and its meaning
is that of tensorrt_llm/_torch/pyexecutor/py_executor.py; every one of them may be missing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct, field

from llmtop.engines.core.samples import Counter
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.tensorrt_llm.record import Record, number, part

PATH = "/metrics"

# After a hole in the iterations sums are not reported until it is older than any window over them.
HOLE_S = 15.0
# The counter is read when an iteration's results are, one step later: it may skip one (or repeat).
_STEPS = 2
_FELL = 16  # and micro-batches come back out of order; a new engine begins far below
_MOST_RANKS = 1024  # an answer is not to be trusted with our memory


class Occupancy(Struct, frozen=True):
    """How full the engine was after its last iteration. None: unknown."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    kv_tokens_total: int | None = None


class _Rank(Struct):
    """One attention-parallel rank (there is one, unless attention is data-parallel)."""

    iteration: float | None = None
    last: Record = field(default_factory=dict)


def decode(text: str) -> list[Record]:
    """The iterations in an answer. ScrapeError when it is something else."""
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
    """Adds up what the iterations of one engine did."""

    def __init__(self) -> None:
        self._ranks: dict[float, _Rank] = {}
        self._sums: dict[Counter, float] = {}
        self._hole_at: float | None = None

    def add(self, records: list[Record], elapsed: float) -> None:
        """Take in the iterations of one answer, oldest first, read at ``elapsed``."""
        for record in records:
            rank = self._rank(record)
            if rank is None:
                continue
            iteration, before = number(record, "iter"), rank.iteration
            if iteration is not None:
                if before is not None and iteration < before - _FELL:  # another engine process
                    rank = _Rank()
                    self._ranks, self._sums = {_which(record): rank}, {}
                elif before is not None and iteration > before + _STEPS:
                    self._hole_at = elapsed
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
        """The engine after the last iteration that was read; ranks are laid together."""
        last = [rank.last for rank in self._ranks.values()]
        used, most = _total(last, _used_tokens), _total(last, _kv_tokens)
        return Occupancy(
            running=_whole(_total(last, _running)),
            waiting=_whole(_total(last, lambda record: number(record, "numQueuedRequests"))),
            kv_usage=min(used / most, 1.0) if used is not None and most else None,
            kv_tokens_total=_whole(most) or None,
        )

    def totals(self, elapsed: float) -> dict[Counter, float]:
        """Counters since this reading began. Sums with a recent hole in them are left out."""
        found = self._cache()
        if self._hole_at is None or elapsed - self._hole_at > HOLE_S:
            found |= self._sums
        return found

    def _cache(self) -> dict[Counter, float]:
        # These the engine itself counts from its start, in blocks.
        last = [rank.last for rank in self._ranks.values()]
        hits = _total(last, lambda record: _kv_blocks(record, "reusedBlocks"))
        missed = _total(last, lambda record: _kv_blocks(record, "missedBlocks"))
        if hits is None or missed is None:
            return {}
        return {Counter.PREFIX_HITS: hits, Counter.PREFIX_QUERIES: hits + missed}


def _done(record: Record) -> dict[Counter, float]:
    """What one iteration did."""
    found: dict[Counter, float] = {}
    completed = number(record, "numCompletedRequests")
    batch = part(record, "inflightBatchingStats")
    spec = part(record, "specDecodingStats")
    accepted = number(spec, "numAcceptedTokens") or 0.0
    generating = number(batch, "numGenRequests")
    if generating is not None:
        # One token for each request that decodes, and its accepted drafts. The first token of a
        # request comes out of its prefill, which may take several iterations: it is counted when
        # the request completes.
        found[Counter.OUTPUT_TOKENS] = generating + accepted + (completed or 0.0)
    # The PyTorch backend of most versions leaves it 0, which is no fact about prompts.
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
    # The active ones are counted before the iteration, the completed ones after it: without the
    # difference an engine that went idle would show its last request running for ever.
    active = number(record, "numActiveRequests")
    if active is None:
        return None
    return max(active - (number(record, "numCompletedRequests") or 0.0), 0.0)


def _kv_tokens(record: Record) -> float | None:
    return _kv_blocks(record, "maxNumBlocks")


def _used_tokens(record: Record) -> float | None:
    return _kv_blocks(record, "usedNumBlocks")


def _kv_blocks(record: Record, name: str) -> float | None:
    """So many blocks of the KV cache, in tokens."""
    kv = part(record, "kvCacheStats")
    blocks, size = number(kv, name), number(kv, "tokensPerBlock")
    return blocks * size if blocks is not None and size else None


def _total(records: list[Record], read: Callable[[Record], float | None]) -> float | None:
    """Sum over the ranks, None as soon as one of them does not report it."""
    values = [read(record) for record in records]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
