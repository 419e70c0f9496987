"""Speculation on a real vLLM that was launched with a table of drafts by batch size.

Its worker is a process of its own, as it is with several GPUs, and dies in the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable

import pytest

from llmtop.engines.core.options import Outcome
from llmtop.engines.tuning.live_client import LiveClient
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import CHANGE_WAIT_S, child, died, family
from tests.engines_live.vllm_served import FLAGS, WITH_WORKER

NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_max": 4,
    "prompt_lookup_min": 1,
    "num_speculative_tokens_per_batch_size": [[1, 16, 4]],
}
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"


@pytest.fixture(scope="module")
def engine(start_vllm: Callable[..., Engine]) -> Engine:
    # With a list of allowed plugins, which ours is added to.
    flags = (*FLAGS, "--speculative-config", json.dumps(NGRAM))
    return start_vllm(*flags, VLLM_PLUGINS="somebody_elses", **WITH_WORKER)


def test_speculation_off_and_on_under_load(engine: Engine) -> None:
    client = LiveClient(engine.socket)

    def drafts(number: int) -> None:
        (done,) = asyncio.run(client.set({"num_speculative_tokens": number}, wait_s=CHANGE_WAIT_S))
        assert done.outcome is Outcome.APPLIED

    with engine.under_load() as load:
        start = engine.metric(DRAFT_TOKENS)
        engine.eventually(lambda: engine.metric(DRAFT_TOKENS) > start + 50)
        assert "launch table" in asyncio.run(client.get()).options["num_speculative_tokens"].note

        drafts(0)
        engine.settle()
        off = engine.metric(DRAFT_TOKENS)
        engine.settle(20)
        assert engine.metric(DRAFT_TOKENS) == off

        drafts(4)
        engine.soon(lambda: engine.metric(DRAFT_TOKENS) > off + 50)

        (capped,) = asyncio.run(client.set({"max_num_seqs": 2}, evict=True, wait_s=CHANGE_WAIT_S))
        assert capped.evicted >= 1
        engine.soon(lambda: engine.metric("vllm:num_requests_running") <= 2)
    assert load.failed == []


def test_a_killed_worker_is_the_engines_end_and_is_named(engine: Engine) -> None:
    pids = family(engine.pid)
    assert len(pids) >= 3  # API server, engine core, worker
    os.kill(child(pids, "VLLM::Worker"), signal.SIGKILL)
    # vLLM writes how it ended, when it saw that; else that it died.
    detail = died(engine.home, pids)["detail"]
    ends = r"its (worker )?process \S+ (was killed \(SIGKILL\)|died)"
    assert re.fullmatch(ends, detail), detail
