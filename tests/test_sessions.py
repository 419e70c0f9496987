"""What can be had of an engine that llmtop did not start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from llmtop.engines import simulated, tensorrt_llm
from llmtop.engines.adapter import Adapter
from llmtop.engines.endpoint import Endpoint
from llmtop.engines.live_answer import LiveError, LiveOption, LiveState
from llmtop.engines.options import Applies, Change, Outcome
from llmtop.tui.session import EngineSession
from llmtop.tui.wiring import Wiring

URL = "http://127.0.0.1:9"


class Stock:
    """An engine's own live options, over HTTP."""

    def __init__(self, url: str, api_key: str) -> None:
        self.asked_with = (url, api_key)
        self.silent = False
        self.value = 8

    async def get(self) -> LiveState:
        if self.silent:
            raise LiveError("the engine wants a key (HTTP 401)")
        cap = LiveOption(self.value, 16, 1, 16, Applies.DRAINS)
        return LiveState(
            engine="x", version="1", pid=None, options={"max_num_seqs": cap}, history=()
        )

    async def set(
        self, changes: Mapping[str, int], *, evict: bool = False, by: str = "", wait_s: float = 1.0
    ) -> tuple[Change, ...]:
        before, self.value = self.value, changes["max_num_seqs"]
        return (Change("max_num_seqs", before, self.value, Outcome.APPLIED, by=by),)

    async def close(self) -> None:
        pass


def session(adapter: Adapter) -> EngineSession:
    wiring = Wiring({"LLMTOP_API_KEY": "k"})
    return wiring.session(Endpoint("there", adapter, URL))


async def test_stock_live_options_are_asked_by_url_with_the_key() -> None:
    there = session(replace(simulated.ADAPTER, stock_live=Stock))
    assert isinstance(there.live, Stock)
    assert there.live.asked_with == (URL, "k")
    options = {option.name: option for option in (await there.options())[0]}
    assert (options["max_num_seqs"].value, options["max_num_seqs"].launch) == (8, 16)
    # Whatever the others were launched with, it need not be the default.
    assert options["gpu_memory_utilization"].value is None
    cap, memory = await there.change({"max_num_seqs": 3, "gpu_memory_utilization": 0.5})
    assert (cap.outcome, cap.before, cap.after) == (Outcome.APPLIED, 8, 3)
    assert memory.outcome is Outcome.REFUSED
    assert "restart" in (memory.reason or "")
    there.live.silent = True
    options_now, why = await there.options()
    assert all(option.value is None for option in options_now)
    assert "wants a key" in why
    await there.close()


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (simulated.ADAPTER, "changes options as it runs only where llmtop started it"),
        (tensorrt_llm.ADAPTER, "changes no option while it runs"),
    ],
)
async def test_without_them_it_says_what_cannot_be_had(adapter: Adapter, words: str) -> None:
    there = session(adapter)
    options, why = await there.options()
    assert "llmtop did not start it" in why
    assert words in why
    assert {option.applies for option in options} == {Applies.RESTART}
    (change,) = await there.change({options[0].name: 1})
    assert change.outcome is Outcome.REFUSED
    assert "cannot be changed from here" in (change.reason or "")
    await there.close()
