"""A vLLM with data-parallel ranks that llmtop starts, loads, changes and stops."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.commands import LLMTOP, StepFailed
from bench.gpu.rank_sampler import Sampler
from llmtop.engines.core.live_protocol import LiveState
from llmtop.engines.tuning.live_ranks import RankedLive
from llmtop.operations.wiring import Wiring

NAME = "gpu-dp"
CAP = 256  # of each rank at launch
COMMON = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--max-num-seqs", str(CAP)),
)
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "256..384")
POLL_S = 0.1
COMMAND_S = 60.0  # timeout of any command except the start
START_S = 330.0
FULL = 0.85  # of the streams: the ranks are full when so many run; the rest are between requests


class TimeIsUp(BaseException):
    """The whole run takes longer than --limit. It is no Exception, so that no step catches it."""


class RankedEngine:
    """An engine with several ranks, its load, and the samples of both. out: the folder of results.
    frozen: the pid of a frozen rank, None without one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.out: Path = args.out
        self.result: dict[str, Any] = {"size": args.size, "streams": args.streams, "steps": []}
        self._commands = 0
        self._load: subprocess.Popen[str] | None = None
        self.frozen: int | None = None
        self._sampler: Sampler | None = None
        self.socket = Path()

    # Commands.

    def llmtop(self, *words: str, within_s: float = COMMAND_S) -> tuple[int, Any, str]:
        """Run a command. Returns its exit code, its JSON (None for invalid JSON) and its stderr.

        All output is also written to a file. Raises StepFailed after ``within_s`` seconds.
        """
        self._commands += 1
        begun = time.monotonic()
        try:
            done = subprocess.run(
                [*LLMTOP, *words], capture_output=True, text=True, timeout=within_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(f"llmtop {' '.join(words)}: not within {within_s:g} s") from None
        took = time.monotonic() - begun
        text = f"$ llmtop {shlex.join(words)}\n{done.stdout}{done.stderr}"
        end = f"exit code {done.returncode}, {took:.1f} s\n"
        (self.out / f"command-{self._commands:02}-{words[0]}.txt").write_text(text + end)
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = None
        return done.returncode, document, done.stderr.strip()

    def keep(self) -> None:
        """Write the results so far."""
        if self._sampler is not None:
            self.result["samples"] = list(self._sampler.samples)
        (self.out / "result.json").write_text(json.dumps(self.result, indent=1))

    # Beginning and end.

    def start(self) -> None:
        """Start the engine and its load, and wait until all ranks are full."""
        args = self.args
        eager = () if args.graphs else ("--enforce-eager",)
        flags = (*COMMON, *eager, "--data-parallel-size", str(args.size), *shlex.split(args.flags))
        begun = time.monotonic()
        code, record, errors = self.llmtop(
            *("run", "vllm", args.model, "--name", NAME, "--python", args.python, "--detach"),
            *("--json", "--ready-timeout", f"{START_S - 20:.0f}", "--", *flags),
            within_s=START_S,
        )
        if code != 0 or record is None:
            raise StepFailed(f"the engine did not start: {errors}")
        self.result["engine"] = record | {"start_s": time.monotonic() - begun, "flags": flags}
        path = Wiring().owned(NAME).live_socket
        if path is None:
            raise StepFailed("the engine has no live-option socket")
        self.socket = path
        self._sampler = Sampler(str(record["url"]), path, args.size)
        self._sampler.start()
        shape = f"double 8..{args.streams} every 2s, hold {args.streams} for {args.limit}s"
        self._load = subprocess.Popen(
            [
                *(*LLMTOP, "load", NAME, "--shape", shape),
                *(*LENGTHS, *shlex.split(args.load_flags), "--json"),
            ],
            stdout=(self.out / "load.json").open("w"),
            stderr=(self.out / "load.txt").open("w"),
            text=True,
        )
        full = FULL * args.streams
        self.result["ramp_s"] = self.until(lambda: sum(self.running) >= full, 90)
        self.keep()

    def end(self) -> None:
        """Stop all processes and keep the logs, also after an error."""
        if self.frozen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.frozen, signal.SIGCONT)
        if self._load is not None and self._load.poll() is None:
            self._load.send_signal(signal.SIGINT)
            try:
                self._load.wait(30)
            except subprocess.TimeoutExpired:
                self._load.kill()
                self._load.wait()
        if self._sampler is not None:
            self._sampler.stop()
        with contextlib.suppress(Exception):
            record = Wiring().owned(NAME).record
            assert record is not None
            log = Path(record.log_path)
            shutil.copy(log, self.out / "engine.log")
        begun = time.monotonic()
        try:
            _, record, errors = self.llmtop("stop", NAME, "--json")
            self.result["stop"] = record if record is not None else errors
        except StepFailed as error:
            self.result["stop"] = str(error)
        self.result["stop_s"] = time.monotonic() - begun
        with contextlib.suppress(OSError, ValueError):
            load = json.loads((self.out / "load.json").read_text())
            self.result["load"] = {key: load[key] for key in ("requests", "errors", "duration_s")}
        self.keep()

    # Observations.

    @property
    def sampler(self) -> Sampler:
        """The sampler of the running engine."""
        assert self._sampler is not None
        return self._sampler

    @property
    def running(self) -> list[float]:
        """The running requests of each rank."""
        return self.sampler.running

    def until(self, condition: Callable[[], bool], within_s: float) -> float | None:
        """Wait for a condition. Returns the seconds, None when it was false for ``within_s``."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > within_s:
                return None
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def state(self) -> LiveState:
        """The state of all ranks, as llmtop's client combines them."""
        return asyncio.run(RankedLive(self.socket, tuple(range(self.args.size))).get())

    def change(self, to: int, *, evict: bool = False, option: str = "max_num_seqs") -> Any:
        """Run ``llmtop set``. Returns its exit code, outcome, and the result of each rank."""
        words = ("set", NAME, f"{option}={to}", *(("--evict",) if evict else ()), "--json")
        code, document, errors = self.llmtop(*words)
        if document is None:
            raise StepFailed(errors)
        (change,) = document["changes"]
        return {"command": f"{option}={to}{' --evict' if evict else ''}", "exit": code, **change}
