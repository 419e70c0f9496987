"""Aborts of many requests: what one question to the engine does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from llmtop.engines.core.requests import Aborted, RequestRow, RequestTable
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.operations.inside import abort_all, abort_waiting

PLAIN: dict[str, Any] = dict.fromkeys(RequestRow.__struct_fields__)


class Queue:
    """An engine with requests that wait; it lists 50, and shows a table for a while."""

    def __init__(self, waited: Sequence[float], stuck: Sequence[str] = ()) -> None:
        self.waiting = {f"r{number}": seconds for number, seconds in enumerate(waited)}
        self.stuck = set(stuck)
        self.fresh = False
        self.table = RequestTable(0.0, 0, 0, ())
        self.asked: list[int] = []

    async def requests(self, sort: str) -> RequestTable:
        assert sort == "wait"
        self.fresh = not self.fresh
        if self.fresh:  # every other look is at the table of the one before
            rows = tuple(
                RequestRow(**{**PLAIN, "id": ident, "state": "waiting", "waited_s": seconds})
                for ident, seconds in list(self.waiting.items())[:50]
            )
            self.table = RequestTable(0.0, 0, len(self.waiting), rows)
        return self.table

    async def abort(self, ids: Sequence[str], by: str, reason: str) -> Aborted:
        self.asked.append(len(ids))
        known = [ident for ident in ids if ident in self.waiting]
        done = [ident for ident in known if ident not in self.stuck]
        for ident in done:
            del self.waiting[ident]
        refused = tuple((ident, "no") for ident in known if ident in self.stuck)
        return Aborted(tuple(done), tuple(set(ids) - set(known)), refused)


async def sleep(seconds: float) -> None:
    """Time passes in no time."""


def inside(queue: Queue) -> EngineInside:
    return cast("EngineInside", queue)


async def test_all_that_waited_too_long_are_aborted() -> None:
    queue = Queue([40.0] * 130 + [5.0] * 7)
    done = await abort_waiting(inside(queue), 30.0, "ann", "", sleep)
    assert len(done.aborted) == len(set(done.aborted)) == 130
    assert len(queue.waiting) == 7
    assert (done.ended_before, done.refused) == ((), ())


async def test_one_that_cannot_be_aborted_is_refused_once() -> None:
    queue = Queue([40.0] * 3, stuck=["r1"])
    done = await abort_waiting(inside(queue), 30.0, "ann", "", sleep)
    assert sorted(done.aborted) == ["r0", "r2"]
    assert done.refused == (("r1", "no"),)


async def test_many_ids_are_sent_in_parts() -> None:
    queue = Queue([1.0] * 600)
    done = await abort_all(inside(queue), [*queue.waiting, "r0", "gone"], "ann", "")
    assert len(done.aborted) == 600
    assert done.ended_before == ("gone",)
    assert queue.asked == [256, 256, 89]
