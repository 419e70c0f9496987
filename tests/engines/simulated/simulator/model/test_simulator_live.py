"""Live options of the simulated engine: asked for, applied between steps, never fatal."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.simulated.simulator.http.live_socket import LIMIT, LiveSocket
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.live_options import LiveOptions
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText

LAUNCH = Limits(16, 256, 4)


def make(armed: bool = True) -> tuple[Scheduler, LiveOptions]:
    speculation = Speculation("ngram", 4, 0.8) if armed else None
    limits = LAUNCH if armed else Limits(16, 256)
    pool = BlockPool(200, 4)
    scheduler = Scheduler(limits, pool, random.Random(0), speculation, asynchronous=False)
    return scheduler, LiveOptions(scheduler, wall=lambda: 1000.0)


def load(scheduler: Scheduler, requests: int) -> None:
    for serial in range(requests):
        scheduler.add(Request(serial, [serial] * 8, 50, GeneratedText(serial)))
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.complete(plan)


def outcomes(options: LiveOptions) -> list[tuple[str, object, str]]:
    return [(entry.option, entry.to, entry.outcome) for entry in options.history]


def test_a_change_is_pending_until_the_next_step() -> None:
    scheduler, options = make()
    ticket = options.ask({"max_num_seqs": 4}, evict=False, by="ann@pts/3")
    assert ticket.pending
    assert options.describe()["max_num_seqs"]["pending"] == 4
    assert scheduler.limits == LAUNCH
    options.apply()
    assert not ticket.pending
    assert scheduler.limits == Limits(4, 256, 4)
    assert options.describe()["max_num_seqs"] == {
        "value": 4,
        "launch": 16,
        "minimum": 1,
        "maximum": 16,
        "applies": "live, up to the launch value",
        "pending": None,
    }
    assert options.history[0].as_history() == {
        "time": 1000.0,
        "by": "ann@pts/3",
        "option": "max_num_seqs",
        "from": 16,
        "to": 4,
        "outcome": "applied",
        "reason": None,
        "evicted": 0,
    }


def test_a_queue_limit_is_no_limit_at_0_and_may_be_any_number() -> None:
    scheduler, options = make()
    assert options.describe()["max_queued_requests"]["value"] == 0
    options.ask({"max_queued_requests": 500}, evict=False, by="")
    options.apply()
    assert options.describe()["max_queued_requests"]["applies"] == "live"
    assert scheduler.limits.max_queued_requests == 500
    ticket = options.ask({"max_queued_requests": -1}, evict=False, by="")
    assert not ticket.pending and ticket.entries[0].outcome == "refused"


def test_evict_empties_the_batch_down_to_the_cap() -> None:
    scheduler, options = make()
    load(scheduler, 10)
    ticket = options.ask({"max_num_seqs": 3}, evict=True, by="")
    options.apply()
    assert (len(scheduler.running), ticket.evicted) == (3, 7)
    assert options.history[0].evicted == 7


def test_a_later_change_replaces_a_pending_one() -> None:
    scheduler, options = make()
    first = options.ask({"max_num_seqs": 4, "num_speculative_tokens": 0}, False, "")
    options.ask({"max_num_seqs": 8}, False, "")
    assert first.pending  # its other half
    options.apply()
    assert scheduler.limits == Limits(8, 256, 0)
    assert outcomes(options) == [
        ("max_num_seqs", 4, "refused"),
        ("num_speculative_tokens", 0, "applied"),
        ("max_num_seqs", 8, "applied"),
    ]


@pytest.mark.parametrize(
    ("option", "value", "because"),
    [
        ("max_num_seqs", 0, "not within 1..16"),
        ("max_num_seqs", 17, "not within 1..16"),
        ("max_num_seqs", 10**400, "not within 1..16"),
        ("max_num_seqs", True, "not a whole number"),
        ("max_num_seqs", "4", "not a whole number"),
        ("max_num_seqs", None, "not a whole number"),
        ("max_num_seqs", 4.0, "not a whole number"),
        ("max_num_batched_tokens", 4, "not within 5..256"),
        ("num_speculative_tokens", -1, "not within 0..4"),
        ("limits", 3, "not an option"),
        ("__class__", 3, "not an option"),
    ],
)
def test_what_cannot_be_is_refused_in_words(option: str, value: object, because: str) -> None:
    scheduler, options = make()
    ticket = options.ask({option: value}, True, "")
    options.apply()
    assert ticket.entries[0].outcome == "refused"
    assert because in (ticket.entries[0].reason or "")
    assert scheduler.limits == LAUNCH
    json.dumps(options.history[0].as_history(), allow_nan=False)


def test_speculation_that_was_not_armed_is_no_option() -> None:
    _, options = make(armed=False)
    assert "num_speculative_tokens" not in options.describe()
    entry = options.ask({"num_speculative_tokens": 2}, False, "").entries[0]
    assert entry.outcome == "refused"


def test_a_fault_restores_the_launch_values_and_switches_live_options_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler, options = make()
    load(scheduler, 10)
    options.ask({"max_num_batched_tokens": 64}, False, "")
    options.apply()

    def faulty() -> int:
        raise TypeError("a bad day")

    monkeypatch.setattr(scheduler, "evict", faulty)
    ticket = options.ask({"max_num_seqs": 3}, True, "")
    settled: list[bool] = []
    ticket.settled = lambda: settled.append(True)
    options.apply()
    assert settled == [True]
    assert (scheduler.limits, options.disabled) == (LAUNCH, "TypeError: a bad day")
    assert ticket.entries[0].outcome == "refused"
    assert options.ask({"max_num_seqs": 3}, False, "").entries[0].outcome == "refused"
    plan = scheduler.schedule()  # the engine goes on
    assert plan is not None
    assert len(scheduler.complete(plan)) == 10


def test_the_history_is_bounded() -> None:
    _, options = make()
    for value in range(200):
        options.ask({"max_num_seqs": value}, False, "")
        options.apply()
    assert len(options.history) == 50
    assert options.history[-1].to == 199


class Client:
    """One connection to a socket that is served in this very loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, line: bytes) -> None:
        self.writer.write(line)
        await self.writer.drain()

    async def answer(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self.reader.readline(), 10)
        return json.loads(line)  # type: ignore[no-any-return]

    async def ask(self, request: object) -> dict[str, Any]:
        await self.send(json.dumps(request).encode() + b"\n")
        return await self.answer()

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def keep_applying(options: LiveOptions) -> None:
    while True:
        options.apply()
        await asyncio.sleep(0.001)


async def connect(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(str(path), limit=1 << 20))


async def test_the_socket_is_private_and_speaks_the_protocol(tmp_path: Path) -> None:
    scheduler, options = make()
    load(scheduler, 6)
    path = tmp_path / "live.sock"
    served = LiveSocket(options, scheduler)
    await served.open(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = await connect(path)
    told = await client.ask({"op": "get"})
    assert told["ok"] is True
    assert (told["protocol"], told["engine"], told["running"]) == (1, "simulator", 6)
    assert told["options"]["max_num_seqs"]["value"] == 16

    stepping = asyncio.create_task(keep_applying(options))
    done = await client.ask({"op": "set", "changes": {"max_num_seqs": 2}, "evict": True})
    stepping.cancel()
    assert done["evicted"] == 4
    assert done["ack_ms"] >= 0
    assert [change["outcome"] for change in done["changes"]] == ["applied"]

    late = await client.ask({"op": "set", "changes": {"max_num_seqs": 3, "x": 1}, "wait_s": 0})
    assert [change["outcome"] for change in late["changes"]] == ["pending", "refused"]
    assert (await client.ask({"op": "get"}))["options"]["max_num_seqs"]["pending"] == 3
    await client.leave()
    await served.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"x\n",
        b"[1]\n",
        b'{"op": "quit"}\n',
        b'{"op": "set"}\n',
        b'{"op": "set", "changes": []}\n',
        b'{"op": "set", "changes": {"max_num_seqs": 2}, "evict": "yes"}\n',
        b'{"op": "set", "changes": {"max_num_seqs": 2}, "by": 7}\n',
        b'{"op": "set", "changes": {"max_num_seqs": 2}, "wait_s": NaN}\n',
        b"[" * 5000 + b"\n",
        b"\xff\xfe{}\n",
    ],
)
async def test_a_bad_line_is_answered_and_the_connection_stays(tmp_path: Path, line: bytes) -> None:
    scheduler, options = make()
    path = tmp_path / "live.sock"
    served = LiveSocket(options, scheduler)
    await served.open(str(path))
    client = await connect(path)
    await client.send(line)
    answer = await client.answer()
    assert answer["ok"] is False
    assert answer["error"]
    assert (await client.ask({"op": "get"}))["ok"] is True
    assert list(options.history) == []
    await client.leave()
    await served.close()


async def test_a_line_that_is_too_long_ends_its_connection_alone(tmp_path: Path) -> None:
    scheduler, options = make()
    path = tmp_path / "live.sock"
    served = LiveSocket(options, scheduler)
    await served.open(str(path))
    client = await connect(path)
    await client.send(b"x" * (LIMIT + 10) + b"\n")
    assert (await client.answer())["ok"] is False
    assert await asyncio.wait_for(client.reader.read(), 10) == b""
    other = await connect(path)
    assert (await other.ask({"op": "get"}))["ok"] is True
    await client.leave()
    await other.leave()
    await served.close()


async def test_a_socket_left_behind_is_replaced_and_a_bad_path_is_survived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler, options = make()
    path = tmp_path / "live.sock"
    first = LiveSocket(options, scheduler)
    await first.open(str(path))
    second = LiveSocket(options, scheduler)
    await second.open(str(path))
    client = await connect(path)
    assert (await client.ask({"op": "get"}))["ok"] is True
    await client.leave()
    await second.close()
    await first.close()
    for bad in (tmp_path / "none" / "x", tmp_path / ("long" * 40)):
        lost = LiveSocket(options, scheduler)
        await lost.open(str(bad))
        await lost.close()
        assert "No live options" in capsys.readouterr().out
