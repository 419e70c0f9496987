"""Real engines for the tests in this folder: built once into a cache, started one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmtop.engines import sglang, vllm
from llmtop.engines.adapter import Adapter
from llmtop.engines.records import LaunchSpec
from tests.engines_live.scenario import DTYPE, NAME
from tests.engines_live.vllm_served import FLAGS as VLLM_FLAGS
from tests.engines_live.vllm_served import NGRAM
from tests.engines_live.vllm_served import VARIABLES as VLLM_VARIABLES
from tests.llmtop_process import Home, free_port

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("LLMTOP_ENGINE_CACHE") or Path.home() / ".cache" / "llmtop-engines")
BUILD_LIMIT_S = 1800
START_LIMIT_S = 240


@dataclass
class Stream:
    """One finished request: the tokens that the server counted, or why it failed."""

    tokens: int | None
    error: str = ""


@dataclass
class Engine:
    """A running engine and what a test does with it."""

    url: str
    socket: Path
    log: Path
    process: subprocess.Popen[bytes]

    def metric(self, name: str) -> float:
        """The sum of a metric's series, as /metrics tells it now."""
        return self.metrics(name)[0]

    def metrics(self, *names: str) -> tuple[float, ...]:
        """The same of several at one moment: between two looks the engine makes a step."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sums = dict.fromkeys(names, 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
        return tuple(sums.values())

    def buckets(self, name: str) -> dict[str, float]:
        """A histogram's cumulative counts by upper bound."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {
            sample.labels["le"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"{name}_bucket"
        }

    def eventually(self, what: Callable[[], bool], within_s: float) -> float:
        """Seconds until ``what`` held; fails the test when it does not within ``within_s``."""
        begun = time.monotonic()
        while not what():
            if time.monotonic() - begun > within_s:
                pytest.fail(f"not within {within_s:g} s")
            time.sleep(0.02)
        return time.monotonic() - begun

    def under_load(self, streams: int = 16, tokens: int = 200) -> Load:
        """That many streams, renewed as they end, for as long as the context lasts."""
        return Load(self, streams, tokens)

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stream(self, prompt: str, tokens: int) -> Stream:
        """Send one streamed request and read it to its end."""
        body = {
            "model": "small",
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        counted: int | None = None
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                for line in answer:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        return Stream(None, str(chunk["error"]))
                    if chunk.get("usage"):
                        counted = chunk["usage"]["completion_tokens"]
        except OSError as error:
            return Stream(None, str(error))
        return Stream(counted)


@dataclass
class Load:
    """Streams in flight, renewed as they end, until it is left."""

    engine: Engine
    streams: int
    tokens: int
    finished: list[Stream] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def failed(self) -> list[Stream]:
        """Those that ended with an error, or without all of their tokens."""
        return [stream for stream in self.finished if stream.error or stream.tokens != self.tokens]

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(self.streams)
        self._done: list[Future[None]] = [
            self._pool.submit(self._keep, number) for number in range(self.streams)
        ]
        return self

    def _keep(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            # Repetitive, so that n-gram speculation has something to guess.
            prompt = f"stream {number} turn {turn} " + "the queue grows and the cache fills " * 8
            self.finished.append(self.engine.stream(prompt, self.tokens))
            turn += 1

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        for future in self._done:
            future.result()


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("LLMTOP_REQUIRE_ENGINES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _built(name: str, script: str) -> Path:
    """The bin folder of a cached environment, built now if it is not there yet."""
    try:
        built = subprocess.run(
            ["bash", str(HERE / script), str(CACHE)],
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _unavailable(f"real {name} could not be built within {BUILD_LIMIT_S} s")
    if built.returncode != 0:
        last = (built.stderr.strip().splitlines() or ["no message"])[-1]
        _unavailable(f"real {name} cannot be built here: {last}")
    return Path(built.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def vllm_program() -> Path:
    """The ``vllm`` of the cached environment."""
    return _built("vLLM", "build_vllm.sh") / "vllm"


@pytest.fixture(scope="session")
def sglang_python() -> Path:
    """The Python of SGLang's cached environment."""
    return _built("SGLang", "build_sglang.sh") / "python"


@pytest.fixture(scope="session")
def small_model(vllm_program: Path) -> Path:
    """The folder of the tiny model that either build makes."""
    return CACHE / "models" / "small"


@pytest.fixture(scope="session")
def vllm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Where the vLLM that several modules take over from each other is at home."""
    home = Home.make(tmp_path_factory.mktemp("home"), extra=VLLM_VARIABLES)
    yield home
    home.stop_all()


@pytest.fixture(scope="session")
def vllm_engine(vllm_home: Home, vllm_program: Path, small_model: Path) -> dict[str, Any]:
    """What ``llmtop run`` told of it. It is started once, for a start takes most of a minute."""
    done = vllm_home.run(
        *("run", "vllm", str(small_model), "--bin", str(vllm_program), "--name", NAME),
        *("--port", str(free_port())),
        *("--detach", "--json", "--", *VLLM_FLAGS, *NGRAM),
        timeout=300,
    )
    assert done.code == 0, done.err
    assert "weights" in done.err  # the start-up phases were told
    return dict(done.json)


Start = Callable[..., contextlib.AbstractContextManager[Engine]]


@pytest.fixture(scope="module")
def start_vllm(
    vllm_program: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Start:
    """``with start_vllm(*flags, PYTHONPATH=...)``: a ready engine; nothing is left of it after."""

    def start(*flags: str, **variables: str) -> contextlib.AbstractContextManager[Engine]:
        base = {**VLLM_VARIABLES, **variables}
        program = (str(vllm_program),)
        folder = tmp_path_factory.mktemp("vllm")
        given = (*VLLM_FLAGS, *flags)
        return _running(vllm.ADAPTER, program, str(small_model), given, base, folder)

    return start


@pytest.fixture(scope="module")
def start_sglang(sglang_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """``with start_sglang(*flags, PYTHONPATH=...)``: as ``start_vllm``, for SGLang."""

    def start(
        *flags: str, PYTHONPATH: str = "", **variables: str
    ) -> contextlib.AbstractContextManager[Engine]:
        given = (
            *("--served-model-name", "small", "--dtype", DTYPE, "--device", "cpu"),
            *("--attention-backend", "torch_native", "--mem-fraction-static", "0.3"),
            *("--max-total-tokens", "8192", "--context-length", "2048"),
            *("--max-running-requests", "8", "--chunked-prefill-size", "1024"),
            # Else its scheduler asks for work as fast as a core can.
            "--sleep-on-idle",
            *flags,
        )
        base = {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            # --device alone is not enough: its layers ask for this.
            "SGLANG_USE_CPU_ENGINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (PYTHONPATH, str(HERE / "sglang_cpu")))),
            **variables,
        }
        program = (str(sglang_python), "-m", sglang.ADAPTER.module)
        folder = tmp_path_factory.mktemp("sglang")
        model = str(CACHE / "models" / "small")
        return _running(sglang.ADAPTER, program, model, given, base, folder)

    return start


@contextlib.contextmanager
def _running(
    adapter: Adapter,
    program: tuple[str, ...],
    model: str,
    args: tuple[str, ...],
    variables: dict[str, str],
    folder: Path,
) -> Iterator[Engine]:
    """Start an engine as its adapter says, wait until it is ready, and end all of it at last."""
    live, log = folder / "live" / "s", folder / "engine.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = LaunchSpec(
        kind=adapter.kind,
        name="small",
        model=model,
        host="127.0.0.1",
        port=port,
        program=program,
        args=args,
    )
    base = {**os.environ, **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            adapter.command(spec),
            env={**base, **adapter.environment(spec, live, base)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    engine = Engine(f"http://127.0.0.1:{port}", live, log, process)
    try:
        _await_ready(engine, adapter.title)
        yield engine
    finally:
        _end(process)


def _await_ready(engine: Engine, title: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not engine.healthy():
        if engine.process.poll() is not None or time.monotonic() > deadline:
            log = engine.log.read_text(errors="replace")
            pytest.fail(f"{title} did not start:\n{log[-4000:]}")
        time.sleep(0.25)


def _end(process: subprocess.Popen[bytes]) -> None:
    """TERM, a grace, KILL to the whole group; returns when nothing of the session is left."""
    for sign, grace_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            process.poll()
            if not _session(process.pid):
                process.wait(timeout=5.0)
                return
            time.sleep(0.05)
    pytest.fail(f"left behind: {_session(process.pid)}")


def _session(leader: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            if alive and os.getsid(pid) == leader:
                found.append(pid)
    return found
