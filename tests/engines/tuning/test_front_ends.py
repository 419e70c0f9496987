"""Options of an engine's front ends: set on all of them, and those that did not take it named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.options import Change, Outcome
from llmtop.engines.host.rank_sockets import (
    front_end_sockets,
    rank_sockets,
    remove_sockets,
    socket_of,
)
from llmtop.engines.tuning.front_ends import WithFrontEnds
from llmtop.engines.tuning.live_ranks import RankedLive
from tests.fake_live_server import FakeLiveServer

LIMIT = "max_queued_requests"


class Holder:
    """A rank or a front end that has one option, and takes what it is asked for."""

    def __init__(self, option: str, value: int, refuses: str = "") -> None:
        self.option, self.value, self.refuses = option, value, refuses

    def __call__(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["op"] == "set":
            return self._set(request["changes"])
        option = {"value": self.value, "launch": 0, "minimum": 0, "maximum": 1000}
        about = {"engine": "vllm", "version": "0.32.0", "pid": 1, "running": 3, "waiting": 2}
        return {
            **{"ok": True, "protocol": 1, **about, "evicted_total": 0, "history": []},
            "options": {self.option: {**option, "applies": "live", "pending": None, "note": "n"}},
            "disabled": None,
        }

    def _set(self, changes: Mapping[str, int]) -> Mapping[str, Any]:
        assert list(changes) == [self.option]
        before, to = self.value, changes[self.option]
        if not self.refuses:
            self.value = to
        item = {"option": self.option, "from": before, "to": to, "evicted": 0}
        outcome = "refused" if self.refuses else "applied"
        item |= {"outcome": outcome, "reason": self.refuses or None}
        return {"ok": True, "protocol": 1, "evicted": 0, "ack_ms": 1.0, "changes": [item]}


@asynccontextmanager
async def serving(path: Path, rank: Holder, *front_ends: Holder) -> AsyncIterator[WithFrontEnds]:
    """A rank and its front ends, each on a socket."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(FakeLiveServer(socket_of(path, 0), [rank]))
        for number, holder in enumerate(front_ends):
            fake = FakeLiveServer(path.with_name(f"{path.name}.front.{number}"), [holder])
            await stack.enter_async_context(fake)
        yield WithFrontEnds(RankedLive(path), path)


def batch_limit() -> Holder:
    return Holder("max_num_seqs", 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir(mode=0o700)
    return tmp_path / "s" / "live"


async def change(live: WithFrontEnds, **changes: int) -> tuple[Change, ...]:
    return await live.set(changes, by="ann", wait_s=0.1)


async def test_a_limit_goes_to_all_front_ends_and_the_rest_to_the_ranks(path: Path) -> None:
    front_ends = Holder(LIMIT, 0), Holder(LIMIT, 0)
    rank = batch_limit()
    async with serving(path, rank, *front_ends) as live:
        limit, seqs = await change(live, **{LIMIT: 16, "max_num_seqs": 32})
        assert (limit.option, limit.before, limit.after) == (LIMIT, 0, 16)
        assert (limit.outcome, seqs.outcome) == (Outcome.APPLIED, Outcome.APPLIED)
        assert [one.value for one in front_ends] == [16, 16]
        assert rank.value == 32
        options = (await live.get()).options
    assert (options[LIMIT].value, options["max_num_seqs"].value) == (16, 32)
    assert options[LIMIT].ranks == ()


async def test_front_ends_that_differ_are_shown_and_set_alike(path: Path) -> None:
    front_ends = Holder(LIMIT, 16), Holder(LIMIT, 0)
    async with serving(path, batch_limit(), *front_ends) as live:
        option = (await live.get()).options[LIMIT]
        assert "the front ends differ: 16 on front end 0, 0 on front end 1" in option.note
        assert [one.value for one in option.ranks] == [16, 0]
        await change(live, **{LIMIT: 16})
        assert (await live.get()).options[LIMIT].ranks == ()


async def test_a_front_end_that_refuses_is_named(path: Path) -> None:
    async with serving(
        path, batch_limit(), Holder(LIMIT, 0), Holder(LIMIT, 0, "switched off")
    ) as live:
        (done,) = await change(live, **{LIMIT: 16})
    assert done.outcome is Outcome.PARTIAL
    assert done.reason == "front end 1: switched off"


async def test_without_front_ends_a_limit_of_the_rank_is_the_ranks(path: Path) -> None:
    rank = Holder(LIMIT, 0)
    async with serving(path, rank) as live:
        (done,) = await change(live, **{LIMIT: 8})
    assert done.outcome is Outcome.APPLIED and rank.value == 8


async def test_front_ends_are_no_ranks_and_go_with_the_engine(path: Path) -> None:
    async with serving(path, batch_limit(), Holder(LIMIT, 0)):
        assert rank_sockets(path) == [0] and len(front_end_sockets(path)) == 1
    shared = path.with_name(f"{path.name}.queue")
    shared.write_bytes(b"")
    remove_sockets(path)
    assert list(path.parent.iterdir()) == []
