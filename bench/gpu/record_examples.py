"""Records the examples that are installed with llmtop, on one GPU, in less than 6 minutes.

    python -m bench.gpu.record_examples MODEL --python PATH --out FOLDER [-- more vllm flags]
    python -m bench.gpu.record_examples --simulated --out FOLDER

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random. One engine, started
with n-gram speculation, is used for all recordings: a live batch limit, speculation off and on,
overload without and with a queue limit, and the engine core killed under load. Check the files with
``llmtop replay``, then copy them to ``llmtop/history/examples/``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import msgspec
import psutil

from bench.commands import LLMTOP
from llmtop.history import members
from llmtop.history.fact_codec import decode, encode
from llmtop.history.facts import Head
from llmtop.operations.wiring import Wiring
from llmtop.values import replace

NAME = "h200"
FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--max-num-seqs", "512"),
    "--speculative-config",
    '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, '
    '"prompt_lookup_min": 2}',
)
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "112..144")

Step = tuple[float, tuple[str, ...]]  # seconds after the load's start, a command


class Example(msgspec.Struct, frozen=True):
    """One recording. steps: commands during the load. kill: when to kill the engine core, in
    seconds after the start of the load; None for never."""

    name: str
    title: str
    load: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    kill: float | None = None


def put(*changes: str) -> tuple[str, ...]:
    return ("set", NAME, *changes)


EXAMPLES = (
    Example(
        "h200-batch-limit",
        "a live batch limit: 512, 64, then 256 under 256 streams",
        ("--shape", "double 1..256 every 1s, hold 256 for 42s"),
        ((14, put("max_num_seqs=64")), (29, put("max_num_seqs=256"))),
    ),
    Example(
        "h200-speculation",
        "n-gram speculation on, off and on again under 32 streams of repetitive prompts",
        ("--shape", "hold 32 for 42s", "--repetitive"),
        ((14, put("num_speculative_tokens=0")), (28, put("num_speculative_tokens=4"))),
    ),
    Example(
        "h200-overload",
        "overload: 80 requests a second come, the queue grows; then a queue limit refuses",
        ("--shape", "ramp 5..80 over 10s, hold 80 for 38s", "--open"),
        ((24, put("max_queued_requests=16")),),
    ),
    Example(
        "h200-core-killed",
        "the engine core is killed under 64 streams; llmtop names the cause",
        ("--shape", "hold 64 for 22s"),
        kill=10.0,
    ),
)


def llmtop(*args: str, check: bool = True) -> None:
    subprocess.run([*LLMTOP, *args], check=check)


def core_of(pid: int) -> int:
    """The pid of vLLM's engine core; ``pid`` itself where there is no such process."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "EngineCore" in " ".join(child.cmdline()):
                return child.pid
    return pid


def record(example: Example, folder: Path, *, simulated: bool) -> None:
    llmtop(*put("max_queued_requests=0"), check=False)  # an earlier example may have set it
    path = folder / f"{example.name}.llmtop"
    path.unlink(missing_ok=True)
    lengths = () if "--repetitive" in example.load else LENGTHS
    args = [*LLMTOP, "load", NAME, *example.load, *lengths, "--no-calibrate"]
    load = subprocess.Popen([*args, "--record", str(path)])
    while not path.exists() and load.poll() is None:
        time.sleep(0.1)
    began = time.monotonic()
    for at, command in example.steps:
        time.sleep(max(0.0, began + at - time.monotonic()))
        llmtop(*command, check=False)
    if example.kill is not None:
        time.sleep(max(0.0, began + example.kill - time.monotonic()))
        engine = Wiring().owned(NAME).record
        assert engine is not None
        os.kill(core_of(engine.pid), signal.SIGKILL)
    load.wait()
    if not path.exists():
        raise SystemExit(f"{example.name}: nothing was recorded")
    what = "the simulated engine" if simulated else "a real vLLM on an H200 (dummy weights)"
    retitle(path, example.title, f"{what}, recorded by llmtop")
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB", flush=True)


def retitle(path: Path, title: str, source: str) -> None:
    """Replace the title and the source of a recording. This rewrites all members."""
    fd, made = os.open(path, os.O_RDONLY), bytearray()
    for member in members.index(fd):
        lines = members.text(fd, member).split(b"\n")[:-1]
        head = decode(lines[0])
        assert isinstance(head, Head)
        body = encode(replace(head, title=title, source=source)) + b"\n".join(lines[1:]) + b"\n"
        packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = packed.compress(body) + packed.flush()
        length = members.HEADER_BYTES + len(data) + 8
        made += members.header(length, member.start) + data
        made += members.trailer(zlib.crc32(body), len(body))
    os.close(fd)
    path.write_bytes(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="llama-3.1-8b")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--only", help="the name of one example")
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    more = [one for one in given.flags if one != "--"]
    began = time.monotonic()
    start = ["run", "sim" if given.simulated else "vllm", given.model, "--name", NAME, "--detach"]
    if given.simulated:
        llmtop(*start, "--", "--startup-s", "1", *more)
    else:
        llmtop(*start, "--python", given.python, "--", *FLAGS, *more)
    try:
        for example in EXAMPLES:
            if given.only in (None, example.name):
                record(example, given.out, simulated=given.simulated)
    finally:
        llmtop("stop", NAME, "--grace", "5", check=False)
    print(f"{time.monotonic() - began:.0f} s in total")


if __name__ == "__main__":
    main()
