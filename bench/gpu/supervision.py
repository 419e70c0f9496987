"""Tests the supervision of a real vLLM on real GPUs through llmtop. Prints lines, writes JSON.

usage: python -m bench.gpu.supervision MODEL --python PATH --out RESULT.json [--part life|finds]

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random. It covers what a CPU
cannot show: processes that hold GPU memory, its release, orphans that hold it, a restart and a
rollback with real start-up times, a rolling restart onto a second GPU (if there is one), and tokens
per joule.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pynvml

from bench.commands import LLMTOP, StepFailed, llmtop, timed, until

FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--enforce-eager"),
)
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "112..144")
# Too little for one request of the full length. vLLM detects that after it has loaded the model.
TOO_LITTLE_KV = ("--kv-cache-memory-bytes", str(64 << 20))
MIB = 1 << 20
Steps = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


def used_mib(gpu: int = 0) -> float:
    """The GPU memory in use, in MiB, read from NVML directly as an independent check."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu)
    return float(pynvml.nvmlDeviceGetMemoryInfo(handle).used) / MIB


def engine(name: str) -> dict[str, Any]:
    """One engine as ``llmtop ps`` shows it now."""
    found: dict[str, Any] = next(e for e in llmtop("ps", "--json")["engines"] if e["name"] == name)
    return found


def core_of(pid: int) -> psutil.Process:
    """The engine core process of an API server. Raises StopIteration where there is none."""
    children = psutil.Process(pid).children(recursive=True)
    return next(child for child in children if "EngineCore" in " ".join(child.cmdline()))


class Bench:
    """Runs one engine after another on GPU 0. Each part begins and ends with free GPUs."""

    def __init__(self, model: str, python: str, gpus: int) -> None:
        self._run = ("run", "vllm", model, "--python", python, "--detach", "--json")
        self._model, self._python, self._gpus = model, python, gpus

    def start(self, name: str) -> dict[str, Any]:
        """Start an engine and wait until it is ready."""
        seconds, record = timed(*self._run, "--name", name, "--gpus", "0", "--", *FLAGS)
        return {"start_s": seconds, "pid": record["pid"], "used_mib": used_mib()}

    def stop(self, name: str) -> dict[str, Any]:
        """Stop an engine. Its memory must be free when the command returns."""
        seconds, record = timed("stop", name, "--json")
        return {"stop_s": seconds, "state": record["state"], "used_mib_after": used_mib()}

    def life(self) -> Steps:
        """The steps of a life cycle: start, hang, restart, rollback, rolling restart, stop."""
        yield "doctor, nothing runs", self.doctor
        yield "start", lambda: self.start("sup")
        yield "doctor, an engine runs", self.doctor
        yield "the engine core stops (SIGSTOP)", self.stopped
        yield "restart with an option", self.restart
        yield "restart that cannot start", self.rollback
        if self._gpus > 1:
            yield "rolling restart onto GPU 1, under load", self.rolling
        yield "stop", lambda: self.stop("sup")

    def finds(self) -> Steps:
        """The steps with a search, a comparison, killed processes and an orphan."""
        yield "start", lambda: self.start("sup")
        yield "saturation", self.saturation
        yield "comparison", self.comparison
        yield "the engine core is killed", lambda: self.killed("sup", core=True)
        yield "start again", lambda: self.start("server")
        yield "the API server is killed", lambda: self.killed("server", core=False)
        yield "an orphan of an engine that llmtop did not start", self.orphan

    def doctor(self) -> dict[str, Any]:
        """The findings of ``llmtop doctor``. Its exit code is ignored: 1 means an obstacle."""
        done = subprocess.run([*LLMTOP, "doctor", "--json"], stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        return {
            "blocked": found["blocked"],
            "findings": [one["text"] for one in found["findings"]],
            "driver": found["driver"],
            "holders": [
                {k: h[k] for k in ("pid", "memory_bytes", "command", "engine", "orphan")}
                for gpu in found["gpus"]
                for h in gpu["holders"]
            ],
            "nvml_used_mib": used_mib(),
        }

    def stopped(self) -> dict[str, Any]:
        """Stop and continue the engine core. Returns the seconds until each state is shown."""
        core = core_of(engine("sup")["pid"])
        core.send_signal(signal.SIGSTOP)
        shown = until(lambda: engine("sup")["state"] == "unresponsive", 20)
        core.send_signal(signal.SIGCONT)
        back = until(lambda: engine("sup")["state"] == "ready", 20)
        return {"unresponsive_after_s": shown, "ready_after_s": back}

    def restart(self) -> dict[str, Any]:
        """Change an option that needs a restart."""
        document = llmtop("set", "sup", "max_model_len=4096", "--restart", "--yes", "--json")
        return restart_result(document)

    def rollback(self) -> dict[str, Any]:
        """Restart with an invalid configuration. llmtop must restore the last good one and report
        the reason."""
        document = llmtop("restart", "sup", "--yes", "--json", "--", *TOO_LITTLE_KV, fails=True)
        return restart_result(document) | {"state": engine("sup")["state"], "used_mib": used_mib()}

    def rolling(self) -> dict[str, Any]:
        """Restart onto GPU 1 under a load of another process. The new engine starts first."""
        load = subprocess.Popen(
            [*LLMTOP, "load", "sup", "-c", "16", "-d", "80", *LENGTHS, "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        document = llmtop(
            *("set", "sup", "max_model_len=8192", "--restart", "--rolling", "--gpus", "1"),
            *("--yes", "--json"),
        )
        out, _ = load.communicate(timeout=120)
        return restart_result(document) | {
            "requests": json.loads(out)["requests"],
            "used_mib": [used_mib(0), used_mib(1)],
        }

    def saturation(self) -> dict[str, Any]:
        """Run a saturation search with the cost of tokens."""
        found = llmtop(
            *("saturate", "sup", "--slo", "ttft=500ms,tpot=50ms", "--max", "256"),
            *("--level-seconds", "4", "--gpu-hour", "3", *LENGTHS, "--json"),
        )
        return {key: found[key] for key in ("summary", "answers", "knee", "complete", "levels")}

    def comparison(self) -> dict[str, Any]:
        """Compare two batch limits that must differ."""
        found = llmtop(
            *("compare", "sup", "--a", "max_num_seqs=16", "--b", "max_num_seqs=64", "-c", "64"),
            *("--pairs", "4", "--run-seconds", "4", *LENGTHS, "--json"),
        )
        return {key: found[key] for key in ("summary", "findings", "complete")}

    def killed(self, name: str, core: bool) -> dict[str, Any]:
        """Kill the core or the API server with SIGKILL. Returns the state that llmtop shows, its
        reason, the release of the memory, and the processes that remain."""
        leader = psutil.Process(engine(name)["pid"])
        family = [leader, *leader.children(recursive=True)]
        victim = core_of(leader.pid) if core else leader
        victim.send_signal(signal.SIGKILL)
        after = until(lambda: engine(name)["state"] in ("failed", "lost", "stopped"), 60)
        free = until(lambda: used_mib() < 1024, 30)
        last = engine(name)
        left = [p.pid for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return {
            "seen_after_s": after,
            "state": last["state"],
            "detail": last["detail"],
            "memory_back_after_s": free,
            "processes_left": left,
        }

    def orphan(self) -> dict[str, Any]:
        """Kill the API server of an engine that llmtop did not start. ``llmtop doctor`` must find
        the orphan and end it."""
        serve = (self._python, "-m", "vllm.entrypoints.cli.main", "serve", self._model)
        server = subprocess.Popen(
            [*serve, *FLAGS, "--port", "8990"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        held = until(lambda: used_mib() > 20_000, 180)
        core = core_of(server.pid)
        until(lambda: "VLLM::" in " ".join(core.cmdline()), 60)
        server.kill()
        server.wait()
        found = None

        def named() -> bool:
            nonlocal found
            done = subprocess.run([*LLMTOP, "doctor", "--json"], stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            return any(one["pid"] == core.pid for one in found["orphans"])

        named_after = until(named, 30)
        crowded = subprocess.run(
            [*LLMTOP, *self._run, "--name", "beside", "--gpus", "0", "--", "--no-such-flag"],
            capture_output=True,
            text=True,
        )
        begun = time.monotonic()
        subprocess.run([*LLMTOP, "doctor", "--end", str(core.pid), "--yes"], check=False)
        seconds = time.monotonic() - begun
        return {
            "held_after_s": held,
            "named_after_s": named_after,
            "said": [one["text"] for one in (found or {}).get("findings", [])],
            "run_beside_it_said": crowded.stderr.splitlines()[:4],
            "ended_in_s": seconds,
            "memory_back_after_s": until(lambda: used_mib() < 1024, 30),
        }


def restart_result(document: dict[str, Any]) -> dict[str, Any]:
    """The main fields of the result of a restart."""
    restart = document["restart"]
    keys = ("outcome", "reason", "advice", "expected_s", "took_s", "down_s", "url", "log_excerpt")
    return {key: restart[key] for key in keys} | {"changes": document["changes"]}


def main() -> None:
    """Run all steps. Writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("life", "finds"), action="append")
    args = parser.parse_args()
    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
    card = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    result: dict[str, Any] = {"gpus": count, "card": card}
    bench = Bench(args.model, args.python, count)
    for part in args.part or ("life", "finds"):
        result[part] = done = {}
        for name, step in getattr(bench, part)():
            try:
                found = step()
            except (StepFailed, psutil.Error, StopIteration) as error:
                found = {"error": str(error) or type(error).__name__}
            done[name] = found
            args.out.write_text(json.dumps(result, indent=1))
            short = {key: value for key, value in found.items() if key != "levels"}
            print(f"{name}: {json.dumps(short)}", flush=True)


if __name__ == "__main__":
    main()
