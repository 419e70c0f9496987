"""The live-option client against a scripted socket."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.options import Applies, Outcome
from llmtop.engines.tuning.live_client import LiveClient, LiveError
from tests.fake_live_server import Act, FakeLiveServer, Reply

STATE: dict[str, Any] = {
    "ok": True,
    "protocol": 1,
    "engine": "vllm",
    "version": "0.32.0",
    "pid": 4711,
    "options": {
        "max_num_seqs": {
            "value": 64,
            "launch": 256,
            "minimum": 1,
            "maximum": 256,
            "applies": "live, up to the launch value",
            "pending": 32,
            "note": "one rank",
        }
    },
    "running": 64,
    "waiting": 31,
    "evicted_total": 12,
    "history": [
        {
            "time": 1795326110.8,
            "by": "ann@pts/3",
            "option": "max_num_seqs",
            "from": 256,
            "to": 64,
            "outcome": "applied",
            "reason": None,
            "evicted": 12,
        }
    ],
    "disabled": None,
}


def settled(outcome: str = "applied", **more: Any) -> dict[str, Any]:
    item = {"option": "max_num_seqs", "from": 16, "to": 2, "outcome": outcome, "reason": None}
    return {"ok": True, "protocol": 1, "evicted": 0, "ack_ms": 1.5, "changes": [{**item, **more}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "live"


def client(path: Path, timeout_s: float = 60.0) -> LiveClient:
    return LiveClient(path, timeout_s=timeout_s)


async def test_get_tells_the_whole_state(path: Path) -> None:
    async with FakeLiveServer(path, [STATE]) as fake:
        state = await client(path).get()
    assert fake.heard == [{"op": "get"}]
    assert (state.engine, state.version, state.pid) == ("vllm", "0.32.0", 4711)
    assert (state.running, state.waiting, state.evicted_total) == (64, 31, 12)
    assert state.disabled is None
    option = state.options["max_num_seqs"]
    assert (option.value, option.launch, option.pending) == (64, 256, 32)
    assert (option.minimum, option.maximum) == (1, 256)
    assert (option.applies, option.note) == (Applies.LIVE_UP_TO_LAUNCH, "one rank")
    (change,) = state.history
    assert (change.before, change.after, change.outcome) == (256, 64, Outcome.APPLIED)
    assert (change.by, change.time, change.evicted) == ("ann@pts/3", 1795326110.8, 12)


async def test_set_tells_what_came_of_each_and_how_long_it_took(path: Path) -> None:
    def reply(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            **settled(),
            "evicted": 14,
            "changes": [
                {
                    "option": option,
                    "from": 16,
                    "to": to,
                    "outcome": "refused" if to > 16 else "pending",
                    "reason": "must lie between 1 and 16" if to > 16 else None,
                }
                for option, to in reversed(request["changes"].items())
            ],
        }

    ticks = iter((5.0, 5.25))
    async with FakeLiveServer(path, [reply]) as fake:
        asking = LiveClient(path, clock=lambda: next(ticks), now=lambda: 99.0, timeout_s=10)
        wanted = {"max_num_batched_tokens": 17, "max_num_seqs": 2}
        first, second = await asking.set(wanted, evict=True, by="bob", wait_s=0.5)
    assert fake.heard == [
        {"op": "set", "changes": wanted, "evict": True, "by": "bob", "wait_s": 0.5}
    ]
    assert (first.option, first.outcome) == ("max_num_batched_tokens", Outcome.REFUSED)
    assert first.reason == "must lie between 1 and 16"
    assert (second.option, second.outcome) == ("max_num_seqs", Outcome.PENDING)
    assert (second.before, second.after, second.by, second.time) == (16, 2, "bob", 99.0)
    assert first.ack_ms == second.ack_ms == 250.0
    assert (first.evicted, second.evicted) == (0, 14)  # eviction is max_num_seqs' doing


async def test_asking_for_nothing_asks_nobody(path: Path) -> None:
    assert await client(path).set({}) == ()


async def test_a_waiting_set_does_not_hold_up_a_get(path: Path) -> None:
    async with FakeLiveServer(path, [Act.SILENCE, STATE]) as fake:
        asking = client(path)
        waiting = asyncio.create_task(asking.set({"max_num_seqs": 2}))
        await fake.spoken_to.wait()
        assert (await asking.get()).running == 64
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_no_socket_and_a_dead_socket(path: Path) -> None:
    with pytest.raises(LiveError, match=r"gone \(no such socket") as gone:
        await client(path).get()
    assert gone.value.hint
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(LiveError, match=r"gone \(nothing listens"):
        await client(path).get()


async def test_an_engine_that_hangs_up(path: Path) -> None:
    async with FakeLiveServer(path, [Act.HANG_UP]):
        with pytest.raises(LiveError, match=r"gone \(it closed the connection"):
            await client(path).get()


async def test_half_an_answer_is_no_answer(path: Path) -> None:
    async with FakeLiveServer(path, [b'{"ok": tr']):
        with pytest.raises(LiveError, match="did not answer"):
            await client(path, timeout_s=0.05).get()


async def test_a_silent_engine(path: Path) -> None:
    async with FakeLiveServer(path, [Act.SILENCE]):
        with pytest.raises(LiveError, match=r"did not answer within 0\.05 s"):
            await client(path, timeout_s=0.05).get()
        with pytest.raises(LiveError, match=r"did not answer within 0\.1 s"):
            await client(path, timeout_s=0.05).set({"max_num_seqs": 2}, wait_s=0.05)


LISTENS = """
import os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as mine:
    mine.bind(sys.argv[1])
    mine.listen()
    print(flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def held(path: Path) -> Iterator[int]:
    """A process that listens, and that a signal has stopped."""
    with subprocess.Popen([sys.executable, "-c", LISTENS, path], stdout=subprocess.PIPE) as one:
        try:
            assert one.stdout is not None and one.stdout.readline()
            yield one.pid
        finally:
            one.kill()


@pytest.mark.process
async def test_an_engine_that_a_signal_holds_is_named_at_once(path: Path, held: int) -> None:
    with pytest.raises(LiveError, match=rf"pid {held}\) is stopped by a signal") as seen:
        await client(path, timeout_s=600.0).get()
    assert f"kill -CONT {held}" in str(seen.value.hint)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in STATE.items() if key != name}


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b"x" * 300_000 + b"\n",
        b"9" * 6_000 + b"\n",
        {**STATE, "protocol": 3},
        without("options"),
        without("version"),
        {**STATE, "options": []},
        {**STATE, "options": {"max_num_seqs": 64}},
        {**STATE, "options": {"max_num_seqs": {"value": True}}},
        {**STATE, "running": "many"},
        {**STATE, "evicted_total": None},
        {**STATE, "history": {}},
        {**STATE, "history": [{"option": "x"}]},
        {**STATE, "history": [{**STATE["history"][0], "time": "now"}]},
        {**STATE, "disabled": 1},
    ],
    ids=repr,
)
async def test_nonsense_for_a_get(path: Path, reply: Reply) -> None:
    async with FakeLiveServer(path, [reply]):
        with pytest.raises(LiveError, match="sends invalid data"):
            await client(path).get()


@pytest.mark.parametrize(
    "reply",
    [
        {**settled(), "changes": []},
        {**settled(), "changes": None},
        {**settled(), "changes": ["max_num_seqs"]},
        settled(outcome="maybe"),
        settled(reason=7),
        settled(to="two"),
        {**settled(), "evicted": "some"},
    ],
    ids=repr,
)
async def test_nonsense_for_a_set(path: Path, reply: Reply) -> None:
    async with FakeLiveServer(path, [reply]):
        with pytest.raises(LiveError, match="sends invalid data"):
            await client(path).set({"max_num_seqs": 2})


async def test_an_error_answer_carries_the_engines_words(path: Path) -> None:
    async with FakeLiveServer(path, [{"ok": False, "protocol": 1, "error": "not\x1b[31m JSON"}]):
        with pytest.raises(LiveError) as told:
            await client(path).get()
    assert told.value.message == "the engine refused the request: not JSON"


async def test_text_from_the_engine_cannot_reach_a_terminal(path: Path) -> None:
    wild = "\x1b]0;gotcha\x07\r\n" + "y" * 10_000
    option = {**STATE["options"]["max_num_seqs"], "note": wild}
    answer = {**STATE, "version": wild, "disabled": wild, "options": {"max_num_seqs": option}}
    async with FakeLiveServer(path, [answer]):
        state = await client(path).get()
    for text in (state.version, state.disabled or "", state.options["max_num_seqs"].note):
        assert text.isprintable()
        assert len(text) <= 500


async def test_newer_words_and_unknown_fields_are_survived(path: Path) -> None:
    option = {**STATE["options"]["max_num_seqs"], "applies": "at full moon", "new": 1}
    async with FakeLiveServer(path, [{**STATE, "options": {"x": option}, "more": []}]):
        assert (await client(path).get()).options["x"].applies is Applies.LIVE


async def test_a_closed_client_fails_and_lets_go_of_what_it_waits_for(path: Path) -> None:
    async with FakeLiveServer(path, [Act.SILENCE]) as fake:
        asking = client(path)
        waiting = asyncio.create_task(asking.get())
        await fake.spoken_to.wait()
        await asking.close()
        with pytest.raises(LiveError):
            await waiting
        with pytest.raises(LiveError, match="closed"):
            await asking.get()
