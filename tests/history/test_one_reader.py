"""TensorRT-LLM in the history and in recordings: its iterations can be read by one process only.

The server is a stand-in that keeps the documented form (tests/fake_trtllm_serve.py).
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from llmtop.engines.state.attached_engines import AttachedEngines
from llmtop.history.facts import SampleFact, StepsFact
from llmtop.history.history_reader import HistoryReader
from llmtop.history.recording_reader import Recording
from llmtop.operations.recorder_process import RecorderKeeper
from tests.folders import TESTS
from tests.llmtop_process import Home, free_port

pytestmark = [pytest.mark.process, pytest.mark.more]

PATIENCE_S = 60.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server that keeps its statistics."""
    file = tmp_path / "c.yaml"
    file.write_text("enable_iter_perf_stats: true\nreturn_perf_metrics: true\n")
    port = str(free_port())
    command = [sys.executable, str(TESTS / "fake_trtllm_serve.py"), "tiny", "--host", "127.0.0.1"]
    command += ["--port", port, "--extra_llm_api_options", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        found = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"{found}/health").status_code == 200
            return False

        assert eventually(answers)
        yield found
        server.terminate()


@pytest.fixture
def load(url: str) -> Iterator[None]:
    """Four streams, one request after another, until the test ends."""
    ends = threading.Event()

    def stream() -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not ends.is_set():
                body = {"prompt": "a " * 64, "max_tokens": 50, "stream": True}
                client.post(f"{url}/v1/completions", json=body)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for one in threads:
        one.start()
    yield
    ends.set()
    for one in threads:
        one.join()


def eventually(true: object) -> bool:
    assert callable(true)
    ends = time.monotonic() + PATIENCE_S
    while not (found := true()) and time.monotonic() < ends:
        time.sleep(0.1)
    return bool(found)


def running(folder: Path, name: str) -> list[float]:
    """The requests that ran, as the history has them; seconds without a number are left out."""
    if not (folder / "history.db").exists():
        return []
    with HistoryReader(folder) as reader:
        past = reader.past(name, "tensorrt-llm", time.time() + 1, 1200)
    values = past.fine["running"].values if "running" in past.fine else ()
    return [value for value in values if value is not None and value == value]


@pytest.mark.usefixtures("load")
def test_its_iterations_are_in_the_history_and_its_steps_in_a_recording(
    url: str, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    home = Home.make(tmp_path / "home", {"LLMTOP_HISTORY": "on"})
    state = home.folder / "state" / "llmtop"
    keeper = RecorderKeeper(state / "history", home.environ, steady=lambda: time.monotonic() * 50)
    engines, name = AttachedEngines(state), url.removeprefix("http://")

    def recorded(more_than: int) -> bool:
        engines.note(url)  # as a screen does, again and again
        return keeper.ensure_running() == "" and len(running(state / "history", name)) > more_than

    # Only the queue of iterations reports how many requests run.
    assert eventually(lambda: recorded(2))
    assert max(running(state / "history", name)) == 4
    # A command that asks for the queue gets it. The history then reads what the command reads.
    before = len(running(state / "history", name))
    path = tmp_path / "run.llmtop"
    noted = threading.Event()

    def note() -> None:
        while not noted.wait(1):
            engines.note(url)

    beside = threading.Thread(target=note)
    beside.start()
    done = home.run("record", url, "-o", str(path), "--for", "15s")
    noted.set()
    beside.join()
    assert done.code == 0, done.err
    assert recorded(before + 5)
    with Recording(path) as recording:
        facts = list(recording.facts(kinds={"sample", "steps"}))
    found = [one.sample for one in facts if isinstance(one, SampleFact)]
    steps = [one for one in facts if isinstance(one, StepsFact)]
    assert max(one.running or 0 for one in found if one is not None) == 4
    decoded = [tokens for one in steps for tokens in one.columns["decode_tokens"]]
    assert len(decoded) > 100 and max(tokens or 0 for tokens in decoded) == 4
    assert all(one.columns["duration_s"] and "update_s" not in one.columns for one in steps)
    # Nobody shows it any more, and the recorder ends.
    for file in (state / "attached").iterdir():
        file.unlink()
    keeper.detach()


@pytest.mark.usefixtures("load")
def test_steps_are_shown_beside_a_recorder_that_reads_them(url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home = Home.make(tmp_path / "home")
    path = tmp_path / "run.llmtop"
    other = threading.Thread(target=home.run, args=("record", url, "-o", str(path), "--for", "12s"))
    other.start()
    assert eventually(lambda: path.exists() and path.stat().st_size > 4000)
    done = home.run("steps", url, "--json")
    other.join()
    assert done.code == 0, done.err
    assert len(done.json["steps"]) > 20
