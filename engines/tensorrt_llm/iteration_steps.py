"""Converts TensorRT-LLM's iterations to steps. Values that are not reported are unknown.

Source of the fields: tensorrt_llm/_torch/pyexecutor/py_executor.py (``_update_iter_stats``) and the
keys that tests/unittest/llmapi/apps/_test_openai_metrics.py asserts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from llmtop.engines.core.steps import Step, Steps
from llmtop.engines.tensorrt_llm.record import number, part

KEPT = 4096
SKIPPED = 2  # iteration numbers that count as lost: a single one can be skipped normally
MISSING = {
    "schedule_s": "TensorRT-LLM does not report it",
    "update_s": "TensorRT-LLM does not report it",
    "launch_s": "TensorRT-LLM does not report it",
    "host_gap_s": "TensorRT-LLM does not report it",
    "idle_s": "TensorRT-LLM does not report it",
    "refused": "TensorRT-LLM does not report it",
    "requests": "TensorRT-LLM does not report its requests",
}
NO_PROMPT_TOKENS = "this version reports 0 prompt tokens in every iteration"

Record = Mapping[str, Any]


class IterationSteps:
    """The last steps of one engine, from the answers of its queue.

    lost: iterations that another reader received.
    """

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=KEPT)
        self._ranks: set[int] = set()
        self._no_prompt_tokens = False
        self._last: dict[float, float] = {}  # by rank: the number of the last iteration
        self.lost = 0

    def add(self, records: Sequence[Record], now: float) -> None:
        """Add the iterations of one answer, oldest first. now: unix seconds, for the newest."""
        self._count_lost(records)
        found = [(record, step) for record in records if (step := _step(record)) is not None]
        if not found:
            return
        stamps = [_stamp(record) for record, _ in found]
        last = stamps[-1]
        for (record, step), stamp in zip(found, stamps, strict=True):
            # The timestamp has no time zone, so only differences are used.
            ago = last - stamp if last is not None and stamp is not None else 0.0
            self._steps.append(_at(step, now - min(max(ago, 0.0), 86_400.0)))
            self._ranks.add(step.rank)
            batch = part(record, "inflightBatchingStats")
            if number(batch, "numContextRequests") and not number(batch, "numCtxTokens"):
                self._no_prompt_tokens = True

    def take(self, steps: Sequence[Step]) -> None:
        """Add the steps that another reader shares, except known ones."""
        known = self._steps[-1].end if self._steps else float("-inf")
        for step in steps:
            if step.end > known:
                self._steps.append(step)
                self._ranks.add(step.rank)
        self._last.clear()

    def since(self, end: float) -> list[Step]:
        """The steps that ended after ``end``, unix seconds."""
        found = list(takewhile(lambda step: step.end > end, reversed(self._steps)))
        return found[::-1]

    def _count_lost(self, records: Sequence[Record]) -> None:
        for record in records:
            iteration = number(record, "iter")
            if iteration is None:
                continue
            rank = number(record, "attentionDpRank") or 0.0
            skipped = iteration - self._last.get(rank, iteration) - 1
            self.lost += round(skipped) if skipped >= SKIPPED else 0
            self._last[rank] = iteration

    def steps(self, time: float) -> Steps:
        """The steps that are kept. time: unix seconds."""
        missing = dict(MISSING)
        if self._no_prompt_tokens:
            missing["prefill_tokens"] = NO_PROMPT_TOKENS
        return Steps(tuple(self._steps), self.lost, max(len(self._ranks), 1), missing, time)


def _at(step: Step, end: float) -> Step:
    return Step(**{**{name: getattr(step, name) for name in Step.__struct_fields__}, "end": end})


def _step(record: Record) -> Step | None:
    """The step; None if the iteration had no requests or does not report its duration."""
    iteration, took_ms = number(record, "iter"), number(record, "iterLatencyMS")
    batch, kv = part(record, "inflightBatchingStats"), part(record, "kvCacheStats")
    contexts, generating = number(batch, "numContextRequests"), number(batch, "numGenRequests")
    if iteration is None or took_ms is None or not (contexts or generating):
        return None
    drafting = part(record, "specDecodingStats")
    drafts, accepted = number(drafting, "numDraftTokens"), number(drafting, "numAcceptedTokens")
    decoding = generating or 0.0
    lengths = [number(record, name) for name in ("numCtxKvTokens", "numGenKvTokens")]
    known = [length for length in lengths if length is not None]
    active, completed = number(record, "numActiveRequests"), number(record, "numCompletedRequests")
    return Step(
        seq=round(iteration),
        end=0.0,
        duration_s=took_ms * 1e-3,
        requests=round((contexts or 0.0) + decoding),
        prefills=_whole(contexts),
        prefill_tokens=round(number(batch, "numCtxTokens") or 0.0),
        decode_tokens=round(decoding + (drafts or 0.0)),
        # A completed prefill emits a token too, but the number of completed prefills is unknown.
        output_tokens=None if contexts else round(decoding + (accepted or 0.0)),
        draft_tokens=_whole(drafts),
        accepted_tokens=_whole(accepted),
        running=round(max((active or 0.0) - (completed or 0.0), 0.0)),
        waiting=round(number(record, "numQueuedRequests") or 0.0),
        kv_free_blocks=_whole(number(kv, "freeNumBlocks")),
        preempted=_whole(number(batch, "numPausedRequests")),
        context_tokens=round(sum(known)) if len(known) == len(lengths) else None,
        schedule_s=None,
        update_s=None,
        launch_s=None,
        host_gap_s=None,
        idle_s=None,
        cached_tokens=None,
        refused=None,
        rank=round(number(record, "attentionDpRank") or 0.0),
    )


def _stamp(record: Record) -> float | None:
    """The timestamp in seconds, in the engine's unknown time zone; None if it is invalid."""
    text = str(record.get("timestamp"))[:32]
    try:
        return datetime.strptime(text, "%m-%d-%Y %H:%M:%S.%f").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
