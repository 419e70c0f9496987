"""Measures the accuracy and the cost of introspection on an engine on a CPU.

    python -m bench.inside.on_cpu vllm-truth --program VENV/bin/vllm --model FOLDER
    python -m bench.inside.on_cpu sglang-truth --program VENV/bin/python --model FOLDER
    python -m bench.inside.on_cpu vllm-cost --program VENV/bin/vllm --model FOLDER

The engine is started in a new state directory, warmed up, measured and stopped. Arguments after
``--`` are passed to the measurement. The load average, and how long each process waited for a core,
are printed as well, because they limit the accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from llmtop.engines.state.state_directory import StateDirectory
from llmtop.loadgen.core.clock import NS

LLMTOP = (sys.executable, "-m", "llmtop")
ROOT = Path(__file__).resolve().parents[2]
NAME = "measured"
QUIET = {
    **{"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    **{"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
}
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
SGLANG = {"SGLANG_USE_CPU_ENGINE": "1"}
VLLM_FLAGS = (
    *("--served-model-name", "small", "--max-model-len", "2048", "--max-num-seqs", "64"),
    *("--max-num-batched-tokens", "2048", "--block-size", "32", "--num-gpu-blocks-override", "800"),
    *("--enforce-eager", "--distributed-executor-backend"),
    "vllm.v1.executor.uniproc_executor.UniProcExecutor",
)
SGLANG_FLAGS = (
    *("--served-model-name", "small", "--device", "cpu", "--attention-backend", "torch_native"),
    *("--mem-fraction-static", "0.3", "--max-total-tokens", "24576", "--context-length", "2048"),
    *("--max-running-requests", "64", "--chunked-prefill-size", "1024", "--sleep-on-idle"),
)
STAND_INS = ROOT / "tests" / "engines_live" / "sglang_cpu"  # replace kernels that need a GPU
SWITCH = ROOT / "bench" / "inside" / "switch"


@contextmanager
def started(kind: str, given: argparse.Namespace, folder: Path) -> Iterator[Any]:
    """Start an engine and warm it up with a short load. Yields its record; stops it at the end."""
    path = os.environ.get("PYTHONPATH", "")
    extra = SWITCH if kind == "vllm" else STAND_INS
    os.environ.update(QUIET, **(VLLM if kind == "vllm" else SGLANG))
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    os.environ["LLMTOP_BENCH_SWITCH"] = str(folder / "switch")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), str(extra), path)))
    (folder / "switch").write_text("on")
    flags = VLLM_FLAGS if kind == "vllm" else SGLANG_FLAGS
    program = "--bin" if kind == "vllm" else "--python"
    subprocess.run(
        [*LLMTOP, "run", kind, given.model, program, given.program, "--name", NAME, "--detach",
         "--port", str(given.port), "--", *flags, "--dtype", given.dtype],
        check=True,
    )  # fmt: skip
    try:
        record = StateDirectory(folder / "state" / "llmtop").load(NAME)
        assert record is not None and record.live_socket is not None
        warm = [sys.executable, "-m", "bench.inside.streams", record.url]
        subprocess.run(
            [*warm, "--streams", "8", "--seconds", "5"], check=True, stdout=subprocess.DEVNULL
        )
        yield record
    finally:
        subprocess.run([*LLMTOP, "stop", NAME], check=False)


def command(what: str, record: Any, folder: Path, more: list[str]) -> list[str]:
    """The command of the measurement ``what``."""
    if what == "sglang-truth":
        saved = ("--saved", str(folder / "load.jsonl"))
        return [sys.executable, "-m", "bench.inside.sglang_truth", NAME, *saved, *more]
    if what == "vllm-truth":
        words = [sys.executable, "-m", "bench.inside.vllm_truth", record.url, record.live_socket]
        return [*words, *more]
    where = ("--socket", record.live_socket, "--pid", str(record.pid))
    words = [sys.executable, "-m", "bench.inside.vllm_cost", record.url, *where]
    return [*words, "--switch", str(folder / "switch"), *more]


def run_delay_s(pid: int) -> dict[str, float]:
    """The seconds for which the threads of each process have waited for a core, by pid."""
    found = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        waited = 0
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            waited += int((task / "schedstat").read_text().split()[1])
        found[str(process.pid)] = waited / NS
    return found


def main() -> None:
    """Start the engine, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("vllm-truth", "sglang-truth", "vllm-cost"))
    parser.add_argument("--program", required=True, help="vllm, or the Python of SGLang")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--port", type=int, default=18431)
    mine, _, more = " ".join(sys.argv[1:]).partition(" -- ")
    given = parser.parse_args(mine.split())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with started(given.what.partition("-")[0], given, folder) as record:
            before = run_delay_s(record.pid)
            done = subprocess.run(command(given.what, record, folder, more.split()), check=False)
            after = run_delay_s(record.pid)
            waits = {pid: round(after[pid] - before.get(pid, 0.0), 2) for pid in after}
            print(json.dumps({"load": os.getloadavg(), "waited_for_a_core_s": waits}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
