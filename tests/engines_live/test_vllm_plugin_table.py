"""Speculation on a real vLLM that was launched with a table of drafts by batch size."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from llmtop.engines.live import LiveClient
from llmtop.engines.options import Outcome

if TYPE_CHECKING:
    from tests.engines_live.conftest import Engine

Start = Callable[..., AbstractContextManager["Engine"]]

NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_max": 4,
    "prompt_lookup_min": 1,
    "num_speculative_tokens_per_batch_size": [[1, 16, 4]],
}
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"


@pytest.fixture(scope="module")
def engine(start_vllm: Start) -> Iterator[Engine]:
    # With a list of allowed plugins, which ours is added to.
    flags = ("--speculative-config", json.dumps(NGRAM))
    with start_vllm(*flags, VLLM_PLUGINS="somebody_elses") as running:
        yield running


def test_speculation_off_and_on_under_load(engine: Engine) -> None:
    client = LiveClient(engine.socket)

    def drafts(number: int) -> None:
        (done,) = asyncio.run(client.set({"num_speculative_tokens": number}, wait_s=5.0))
        assert done.outcome is Outcome.APPLIED

    with engine.under_load() as load:
        start = engine.metric(DRAFT_TOKENS)
        engine.eventually(lambda: engine.metric(DRAFT_TOKENS) > start + 50, 30)
        assert "launch table" in asyncio.run(client.get()).options["num_speculative_tokens"].note

        drafts(0)
        time.sleep(0.5)  # the step in flight is still being counted
        off = engine.metric(DRAFT_TOKENS)
        time.sleep(2.0)
        assert engine.metric(DRAFT_TOKENS) == off

        drafts(4)
        engine.eventually(lambda: engine.metric(DRAFT_TOKENS) > off + 50, 2)

        (capped,) = asyncio.run(client.set({"max_num_seqs": 2}, evict=True, wait_s=5.0))
        assert capped.evicted >= 1
        engine.eventually(lambda: engine.metric("vllm:num_requests_running") <= 2, 2)
    assert load.failed == []
