"""A real engine that llmtop runs, and what a test does with it."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from llmtop.engines.state.state_directory import StateDirectory
from tests.engines_live.scenario import NAME, PATIENT_S
from tests.llmtop_process import Home, free_port

START_S = 600  # on cores that others share: two engine cores took more than 300
VLLM_STEPS = "vllm:iteration_tokens_total_count"


class Stream(Struct):
    """One finished request: the tokens that the server counted, or why it failed.

    finish: why the server ended it, in its words.
    """

    tokens: int | None
    error: str = ""
    finish: str = ""


class Engine(Struct):
    """A running engine. told: what ``llmtop run`` told while it started."""

    home: Home
    kind: str
    url: str
    socket: Path
    log: Path
    pid: int
    told: str

    @classmethod
    def run(cls, home: Home, kind: str, model: Path, program: Path, *flags: str) -> Engine:
        """``llmtop run``, and wait until it is ready. Its home stops it."""
        given = "--bin" if kind == "vllm" else "--python"
        done = home.run(
            *("run", kind, str(model), given, str(program), "--name", NAME),
            *("--port", str(free_port()), "--detach", "--json", "--", *flags),
            timeout=START_S,
        )
        assert done.code == 0, done.err
        record = StateDirectory(home.folder / "state" / "llmtop").load(NAME)
        assert record is not None and record.live_socket is not None
        log = Path(record.log_path)
        return cls(home, kind, record.url, Path(record.live_socket), log, record.pid, done.err)

    def metric(self, name: str) -> float:
        """The sum of a metric's series, as /metrics tells it now."""
        return self.metrics(name)[0]

    def metrics(self, *names: str) -> tuple[float, ...]:
        """The same of several at one moment: between two looks the engine makes a step."""
        sums = dict.fromkeys(names, 0.0)
        for family in text_string_to_metric_families(self._page("/metrics")):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
        return tuple(sums.values())

    def by_rank(self, name: str) -> list[float]:
        """A metric of each data-parallel rank, in the order of the ranks."""
        found = {
            int(sample.labels["engine"]): sample.value
            for family in text_string_to_metric_families(self._page("/metrics"))
            for sample in family.samples
            if sample.name == name
        }
        return [value for _, value in sorted(found.items())]

    def buckets(self, name: str) -> dict[str, float]:
        """A histogram's cumulative counts by upper bound."""
        return {
            sample.labels["le"]: sample.value
            for family in text_string_to_metric_families(self._page("/metrics"))
            for sample in family.samples
            if sample.name == f"{name}_bucket"
        }

    @property
    def steps(self) -> int:
        """Steps made so far; of SGLang those that its log tells with ``EVERY_TWO_STEPS``."""
        if self.kind == "vllm":
            return int(self.metric(VLLM_STEPS))
        return 2 * len(re.findall("Decode batch", self.log.read_text(errors="replace")))

    def soon(self, what: Callable[[], bool], steps: int = 10, within_s: float = PATIENT_S) -> None:
        """Fails when ``what`` does not hold within so many steps of the engine, and seconds.

        What a change brings about is bounded in the engine's own steps: seconds bound the machine,
        and the clients that share it, so there are many of them. Of a time in which we did not get
        to look half a second counts.
        """
        begun, looked, seconds = self.steps, time.monotonic(), 0.0
        while True:
            made = self.steps - begun  # before the look: a reader that is held up in between ...
            if what():
                return
            assert made <= steps, f"not within {made} steps"  # ... must not blame the engine
            assert seconds <= within_s, f"not within {seconds:.1f} s, {made} steps"
            time.sleep(0.02)
            now = time.monotonic()
            seconds, looked = seconds + min(now - looked, 0.5), now

    def eventually(self, what: Callable[[], bool], within_s: float = PATIENT_S) -> float:
        """Seconds until ``what`` held; fails the test when it does not within ``within_s``."""
        begun = time.monotonic()
        while not what():
            if time.monotonic() - begun > within_s:
                pytest.fail(f"not within {within_s:g} s")
            time.sleep(0.02)
        return time.monotonic() - begun

    def settle(self, steps: int = 4) -> None:
        """Wait until so many more steps are counted. Those in flight at a change are counted then:
        what one step drafts counts in the next, and the front end counts steps in their order."""
        begun = self.steps
        self.eventually(lambda: self.steps >= begun + steps)

    def under_load(self, streams: int = 16, tokens: int = 200, repeats: int = 8) -> Load:
        """That many streams, renewed as they end, for as long as the context lasts. repeats: of a
        sentence of seven words in each prompt."""
        return Load(self, streams, tokens, repeats)

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        try:
            self._page("/health")
        except OSError:
            return False
        return True

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
        finish = ""
        try:
            with urllib.request.urlopen(request, timeout=PATIENT_S) as answer:
                for line in answer:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        return Stream(None, str(chunk["error"]))
                    for choice in chunk.get("choices", ()):
                        finish = choice.get("finish_reason") or finish
                    if chunk.get("usage"):
                        counted = chunk["usage"]["completion_tokens"]
        except OSError as error:
            return Stream(None, str(error))
        return Stream(counted, finish=finish)

    def _page(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENT_S) as answer:
            return str(answer.read().decode())


SENTENCE = "the queue grows and the cache fills "


class Load:
    """Streams in flight, renewed as they end, until it is left."""

    def __init__(self, engine: Engine, streams: int, tokens: int, repeats: int) -> None:
        self.engine, self.streams, self.tokens, self.repeats = engine, streams, tokens, repeats
        self.finished: list[Stream] = []
        self._stop = threading.Event()

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
            prompt = f"stream {number} turn {turn} " + self.repeats * SENTENCE
            self.finished.append(self.engine.stream(prompt, self.tokens))
            turn += 1

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        for future in self._done:
            future.result()
