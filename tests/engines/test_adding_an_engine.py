"""The example of docs/adding-an-engine.md, word for word, from launch to stop."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec, State
from llmtop.engines.core.samples import Counter, Latency
from llmtop.engines.host.processes import Processes
from llmtop.engines.metrics.scraper import HttpFetch, open_reader
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.supervisor import Supervisor
from tests.folders import TESTS
from tests.llmtop_process import free_port

PAGE = TESTS.parent / "docs" / "adding-an-engine.md"
CODE = TESTS / "pebble_adapter.py"  # `make lint` checks its types and style
DEADLINE_S = 30.0


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    code = example()
    module: dict[str, Any] = {"__name__": "pebble"}
    exec(compile(code, str(PAGE), "exec"), module)
    made: Adapter = module["ADAPTER"]
    return made


@pytest.fixture
def supervisor(adapter: Adapter, tmp_path: Path) -> Iterator[Supervisor]:
    state = StateDirectory(tmp_path / "state", tmp_path / "sockets")
    yield Supervisor(state, {adapter.kind: adapter}, environ=os.environ)
    processes = Processes()
    for log in (tmp_path / "state" / "engines").glob("*/engine.log"):
        for one in processes.writers(log):
            processes.send(one, signal.SIGKILL)


def asked(model: str) -> LaunchSpec:
    port = free_port()
    program = (sys.executable, str(TESTS / "fake_pebble.py"))
    return LaunchSpec(
        "pebble", "a", model, "127.0.0.1", port, program, args=("--max-requests", "8")
    )


def test_the_page_shows_the_code_whose_types_are_checked() -> None:
    assert example() == CODE.read_text(), f"{PAGE} and {CODE} differ"


async def test_the_example_is_launched_read_and_stopped(
    supervisor: Supervisor, adapter: Adapter
) -> None:
    record = supervisor.launch(asked("small"))
    assert supervisor.wait_ready(record, DEADLINE_S).state is State.READY
    assert adapter.launch_options(record.command) == {"max_requests": 8}
    fetch = HttpFetch()
    reader = open_reader(adapter, record.url, fetch)
    reading = await reader.read()
    await reader.close()
    await fetch.close()
    assert (reading.running, reading.waiting, reading.kv_usage) == (3, None, 0.25)
    assert reading.counters == {Counter.OUTPUT_TOKENS: 1200}
    assert reading.histograms[Latency.TTFT].counts == (5, 8)
    assert supervisor.stop(record).exit_code == -signal.SIGTERM
    assert not Processes().writers(Path(record.log_path))


def test_its_failures_are_told_in_its_own_words(supervisor: Supervisor) -> None:
    record = supervisor.launch(asked("huge"))
    with pytest.raises(LaunchFailed, match="the model needs 800 GiB of GPU memory") as failed:
        supervisor.wait_ready(record, DEADLINE_S)
    assert failed.value.hint == "take a smaller model, or give the engine more GPUs"
