"""One engine with several data-parallel ranks, each on a scripted socket of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from llmtop.cli.options.options import shown
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.core.options import Change, Outcome, RankValue
from llmtop.engines.host.rank_sockets import rank_sockets, remove_sockets, socket_of
from llmtop.engines.tuning import resolution
from llmtop.engines.tuning.change_plan import propose
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.live_ranks import RankedLive
from llmtop.engines.tuning.resolution import assemble
from llmtop.engines.vllm.options import OPTIONS
from llmtop.engines.vllm.ranks import live_ranks
from llmtop.wording.outcomes import before_words, evicted_words, in_force, outcome_words
from tests.fake_live_server import Act, FakeLiveServer, Reply

DEADLINE_S = 10.0


class Rank:
    """A scheduler's end: what it is asked is in force at once, and evicts all that is above."""

    def __init__(self, running: int, cap: int = 128, *, off: str | None = None) -> None:
        self.running, self.cap, self.off = running, cap, off
        self.pending: int | None = None
        self.idle = False
        self.evicted = 0
        self.history: list[dict[str, Any]] = []
        self.time = 100.0

    def __call__(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.set(request) if request["op"] == "set" else self.get()

    def get(self) -> Mapping[str, Any]:
        option = {
            "value": self.cap,
            "launch": 128,
            "minimum": 1,
            "maximum": 128,
            "applies": "live, up to the launch value",
            "pending": self.pending,
            "note": None,
        }
        return {
            "ok": True,
            "protocol": 1,
            "engine": "vllm",
            "version": "0.32.0",
            "pid": 1,
            "options": {"max_num_seqs": option},
            "running": self.running,
            "waiting": 2,
            "evicted_total": self.evicted,
            "history": self.history,
            "disabled": self.off,
        }

    def set(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        to, before, evicted = request["changes"]["max_num_seqs"], self.cap, 0
        outcome = "pending" if self.idle else "applied"
        if self.off:
            outcome = "refused"
        elif self.idle:
            self.pending = to
        else:
            self.cap = to
            evicted = max(0, self.running - to) if request["evict"] else 0
            self.running -= evicted
            self.evicted += evicted
        item = {
            "option": "max_num_seqs",
            "from": before,
            "to": to,
            "outcome": outcome,
            "reason": f"live options are switched off: {self.off}" if self.off else None,
            "evicted": evicted,
        }
        if not self.off:
            self.history.append({**item, "time": self.time, "by": request["by"]})
        return {"ok": True, "protocol": 1, "evicted": evicted, "ack_ms": 1.0, "changes": [item]}


class Ranks(AsyncExitStack):
    """Sockets by rank, for as long as the context lasts."""

    def __init__(self, path: Path, **replies: Reply) -> None:
        super().__init__()
        self.path = path
        self._replies = {int(name.removeprefix("r")): reply for name, reply in replies.items()}

    async def __aenter__(self) -> Ranks:
        for rank, reply in self._replies.items():
            fake = FakeLiveServer(socket_of(self.path, rank), [reply])
            await self.enter_async_context(fake)
        return self

    def live(self, *expected: int, timeout_s: float = DEADLINE_S) -> RankedLive:
        return RankedLive(self.path, expected, lambda path: LiveClient(path, timeout_s=timeout_s))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.sock"


def words(change: Change) -> str:
    return f"{change.option}: {outcome_words(change)}; {change.reason}; {evicted_words(change)}"


async def test_one_rank_answers_as_it_always_did(path: Path) -> None:
    async with Ranks(path, r0=Rank(40)) as ranks:
        (change,) = await ranks.live().set({"max_num_seqs": 16}, evict=True, by="me")
        state = await ranks.live().get()
    assert (change.outcome, change.evicted, change.ranks) == (Outcome.APPLIED, 24, ())
    assert outcome_words(change) == "applied"
    assert (state.ranks, state.options["max_num_seqs"].ranks) == ((), ())
    assert state.options["max_num_seqs"].note == ""


async def test_a_change_with_eviction_reaches_both_ranks(path: Path) -> None:
    first, second = Rank(108), Rank(99)
    async with Ranks(path, r0=first, r1=second) as ranks:
        live = ranks.live(0, 1)
        (change,) = await live.set({"max_num_seqs": 16}, evict=True, by="me")
        state = await live.get()
    assert (first.running, second.running) == (16, 16)
    assert (change.before, change.after, change.evicted) == (128, 16, 175)
    assert change.outcome is Outcome.APPLIED and not change.failed
    assert words(change) == (
        "max_num_seqs: applied on 2 of 2 ranks; None; "
        "175 requests put back into the queue (92 on rank 0, 83 on rank 1)"
    )
    assert (state.running, state.waiting, state.evicted_total) == (32, 4, 175)
    (past,) = state.history  # one request, although each rank remembers it
    assert (past.evicted, [one.rank for one in past.ranks]) == (175, [0, 1])
    assert "for each of 2 data-parallel ranks" in state.options["max_num_seqs"].note


async def test_an_idle_rank_is_named_as_pending(path: Path) -> None:
    idle = Rank(0)
    idle.idle = True
    async with Ranks(path, r0=Rank(40), r1=idle) as ranks:
        live = ranks.live()
        (change,) = await live.set({"max_num_seqs": 16}, evict=True)
        state = await live.get()
    assert change.outcome is Outcome.PENDING and not change.failed
    assert outcome_words(change) == (
        "applied on 1 of 2 ranks, pending on rank 1 until the next step there"
    )
    option = state.options["max_num_seqs"]
    assert (option.value, option.pending) == (16, 16)
    assert option.ranks == (RankValue(0, 16), RankValue(1, 128, 16))


async def test_a_rank_that_refuses_is_named_and_the_change_counts_as_failed(path: Path) -> None:
    off = Rank(99, off="TypeError in llmtop's part")
    async with Ranks(path, r0=Rank(108), r1=off) as ranks:
        live = ranks.live()
        (change,) = await live.set({"max_num_seqs": 16}, evict=True)
        state = await live.get()
    assert change.outcome is Outcome.PARTIAL and change.failed
    assert words(change) == (
        "max_num_seqs: applied on 1 of 2 ranks; rank 1 refused: live options are switched off: "
        "TypeError in llmtop's part; 92 requests put back into the queue (92 on rank 0, 0 on "
        "rank 1)"
    )
    assert state.disabled is None  # rank 0 can still be changed
    assert [one.disabled for one in state.ranks] == [None, "TypeError in llmtop's part"]


async def test_what_every_rank_refuses_for_one_reason_is_said_once(path: Path) -> None:
    off = Rank(9, off="broken"), Rank(9, off="broken")
    async with Ranks(path, r0=off[0], r1=off[1]) as ranks:
        (change,) = await ranks.live().set({"max_num_seqs": 16})
        state = await ranks.live().get()
    assert change.outcome is Outcome.REFUSED
    assert words(change) == (
        "max_num_seqs: refused on 2 of 2 ranks; live options are switched off: broken; "
    )
    assert state.disabled == "broken"


async def test_a_frozen_rank_is_named_while_the_other_takes_it(path: Path) -> None:
    async with Ranks(path, r0=Rank(108), r1=Act.SILENCE) as ranks:
        live = ranks.live(timeout_s=0.2)
        (change,) = await live.set({"max_num_seqs": 16}, wait_s=0.0)
        state = await live.get()
    assert change.outcome is Outcome.PARTIAL
    assert "rank 1: the engine's live-option socket did not answer" in (change.reason or "")
    assert state.ranks[1].trouble and state.running == 16 + 92  # drained, not evicted
    option = state.options["max_num_seqs"]
    assert option.ranks == (RankValue(0, 16), RankValue(1, None))


@pytest.mark.parametrize("left_behind", [True, False], ids=["died", "has no socket"])
async def test_a_rank_that_the_engine_was_started_with_is_missed(
    path: Path, left_behind: bool
) -> None:
    if left_behind:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_of(path, 1)))
    async with Ranks(path, r0=Rank(40)) as ranks:
        (change,) = await ranks.live(0, 1).set({"max_num_seqs": 16})
    assert change.outcome is Outcome.PARTIAL
    assert "rank 1: the engine's live-option socket is gone" in (change.reason or "")


async def test_a_rank_that_was_given_up_is_not_missed(path: Path) -> None:
    # Ranks may be added and given up as the engine runs; one of those leaves its socket behind.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_of(path, 2)))
    async with Ranks(path, r0=Rank(40), r1=Rank(40)) as ranks:
        (change,) = await ranks.live(0, 1).set({"max_num_seqs": 16})
    assert outcome_words(change) == "applied on 2 of 2 ranks"


async def test_ranks_are_found_that_nobody_expected_and_that_come_later(path: Path) -> None:
    async with Ranks(path, r0=Rank(40)) as ranks:
        live = ranks.live()
        assert (await live.get()).ranks == ()
        async with FakeLiveServer(socket_of(path, 1), [Rank(7)]):
            state = await live.get()
    assert [(one.rank, one.running) for one in state.ranks] == [(0, 40), (1, 7)]


async def test_a_server_of_one_rank_that_is_not_the_first(path: Path) -> None:
    async with Ranks(path, r3=Rank(40)) as ranks:
        (change,) = await ranks.live(3).set({"max_num_seqs": 16}, evict=True)
    assert (change.outcome, change.evicted, change.ranks) == (Outcome.APPLIED, 24, ())


async def test_when_no_rank_answers_there_is_one_error(path: Path) -> None:
    live = RankedLive(path, (0, 1))
    with pytest.raises(LiveError, match=r"gone \(no such socket\), on none of 2 ranks"):
        await live.get()
    with pytest.raises(LiveError, match="gone"):
        await live.set({"max_num_seqs": 16})
    with pytest.raises(LiveError, match=r"gone \(no such socket\)$"):
        await RankedLive(path).get()


async def test_evictions_of_a_rank_that_fell_silent_still_count(path: Path) -> None:
    second = Rank(99)
    second.evicted = 83
    script: list[Reply] = [second.get(), Act.SILENCE]
    async with FakeLiveServer(path, [Rank(16)]), FakeLiveServer(socket_of(path, 1), script):
        live = RankedLive(path, (0, 1), lambda path: LiveClient(path, timeout_s=0.3))
        assert (await live.get()).evicted_total == 83
        assert (await live.get()).evicted_total == 83


async def test_ranks_that_differ_are_shown_and_can_be_made_alike(path: Path) -> None:
    first, second = Rank(16, cap=16), Rank(99, cap=128)
    async with Ranks(path, r0=first, r1=second) as ranks:
        live = ranks.live()
        state = await live.get()
        option = resolution.find(assemble(OPTIONS, {}, state), "max_num_seqs")
        assert in_force(option, shown) == "16/128"
        assert option.total == 144  # what the whole engine may run
        assert "the ranks differ: 16 on rank 0, 128 on rank 1" in option.note
        # The lowest is what is shown as the value, and asking for it is not asking for nothing.
        assert option.value == 16
        assert propose((option,), {"max_num_seqs": 16}).live == {"max_num_seqs": 16}
        (change,) = await live.set({"max_num_seqs": 16})
        state = await live.get()
    assert before_words(change) == "16 on rank 0, 128 on rank 1"
    option = resolution.find(assemble(OPTIONS, {}, state), "max_num_seqs")
    assert in_force(option, shown) == "16"
    assert "differ" not in option.note
    assert "still running: 99 on rank 1; requests above the limit finish" in option.note
    assert propose((option,), {"max_num_seqs": 16}).settled == ("max_num_seqs",)


async def test_two_requests_for_the_same_are_two_in_the_history(path: Path) -> None:
    first, second = Rank(40), Rank(40)
    async with Ranks(path, r0=first, r1=second) as ranks:
        live = ranks.live()
        for at, cap in ((100.0, 16), (101.0, 32), (200.0, 16)):
            first.time, second.time = at, at + 0.4
            await live.set({"max_num_seqs": cap}, by="me")
        history = (await live.get()).history
    assert [(one.after, one.time, len(one.ranks)) for one in history] == [
        (16, 100.0, 2),
        (32, 101.0, 2),
        (16, 200.0, 2),
    ]


async def test_what_one_rank_alone_was_told_is_named_in_the_history(path: Path) -> None:
    second = Rank(40)
    async with Ranks(path, r0=Rank(40), r1=second) as ranks:
        await LiveClient(socket_of(path, 1)).set({"max_num_seqs": 16}, by="old")
        (past,) = (await ranks.live().get()).history
    assert outcome_words(past) == "applied on rank 1"


async def test_the_note_of_a_plugin_that_knew_one_rank_only_is_left_out(path: Path) -> None:
    def old(request: Mapping[str, Any]) -> Mapping[str, Any]:
        told: dict[str, Any] = dict(Rank(40).get())
        option = {**told["options"]["max_num_seqs"]}
        option["note"] = "drops drafts; this data-parallel rank alone, one of 2"
        return {**told, "options": {"max_num_seqs": option}}

    async with Ranks(path, r0=old, r1=old) as ranks:
        note = (await ranks.live().get()).options["max_num_seqs"].note
    assert note == "drops drafts; for each of 2 data-parallel ranks"


async def test_ranks_are_asked_at_the_same_time(path: Path) -> None:
    both = asyncio.Barrier(2)

    async def meet() -> LiveClient:
        await both.wait()
        raise LiveError("met")

    class Meeting(LiveClient):
        async def get(self) -> Any:
            return await meet()

    live = RankedLive(path, (0, 1), Meeting)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(LiveError, match="met"):
            await live.get()


def test_sockets_of_dead_ranks_are_removed_and_nothing_else(path: Path) -> None:
    for rank in (0, 1, 12):
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(socket_of(path, rank)))
    others = [path.with_name(f"{path.name}{end}") for end in (".old", ".01", ".1.bak", ".3")]
    for other in others:
        other.write_text("a file")
    assert rank_sockets(path) == [0, 1, 12]
    remove_sockets(path)
    assert sorted(path.parent.iterdir()) == sorted(others)


@pytest.mark.parametrize(
    ("args", "ranks"),
    [
        ((), ()),
        (("--data-parallel-size", "1"), ()),
        (("--data-parallel-size", "2"), (0, 1)),
        (("-dp", "2", "--api-server-count", "4", "-tp", "2"), (0, 1)),
        (("--data_parallel_size=3",), (0, 1, 2)),
        # Two of four are on this machine; the server steers all.
        (("-dp", "4", "-dpl", "2", "--data-parallel-address", "10.0.0.1"), (0, 1, 2, 3)),
        (("-dp", "4", "-dpl", "2", "--data-parallel-hybrid-lb"), (0, 1)),
        (("-dp", "4", "-dpl", "2", "--data-parallel-start-rank", "2"), (2, 3)),
        (("-dp", "4", "--data-parallel-rank", "3"), (3,)),
        (("-dp", "many"), ()),
        (("-dp", "99999999999"), ()),
    ],
    ids=str,
)
def test_the_ranks_that_arguments_start(args: tuple[str, ...], ranks: tuple[int, ...]) -> None:
    assert live_ranks(args) == ranks
