"""What the scenarios on real engines share: waiting, who is still there, and what llmtop says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from llmtop.loadgen.workload.structured_output import BUILTIN, load, response_format
from tests.llmtop_process import Home, command
from tests.terminal import Terminal

NAME = "real"
# What must come at all. An engine with a tenth of a core made 2 tokens/s a stream, and an idle
# scheduler took a change after 5.8 s.
PATIENT_S = 240.0
CHANGE_WAIT_S = 30.0  # the longest that an engine waits for its step before it says "pending"


def _dtype() -> str:
    flags = Path("/proc/cpuinfo").read_text()
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


# A CPU without bfloat16 arithmetic emulates it: with 16 streams of the small model vLLM 0.32 made
# 98 tokens/s on an AVX2 core (EPYC 7003), and 271 in float32. What is tested is the same in either.
DTYPE = _dtype()


def seen(what: Callable[[], bool], within_s: float = PATIENT_S) -> float:
    """Seconds until ``what`` held; fails when it does not within ``within_s``."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < within_s, f"not seen within {within_s:g} s"
        time.sleep(0.05)
    return time.monotonic() - begun


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be looked at by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def drained(load: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load says at its end: it is asked to send no more, and what is in flight finishes."""
    load.send_signal(signal.SIGINT)
    out, _ = load.communicate(timeout=240)
    return dict(json.loads(out))


def told(home: Home) -> dict[str, Any]:
    """What ``llmtop ps`` tells of the engine: a llmtop that knows nothing but the records."""
    (found,) = [e for e in home.run("ps", "--json").json["engines"] if e["name"] == NAME]
    return dict(found)


def child(pids: list[int], title: str) -> int:
    """The one process among them that bears this title."""
    (found,) = [pid for pid in pids if " ".join(psutil.Process(pid).cmdline()).startswith(title)]
    return found


def server_dies(home: Home) -> None:
    """The main process is killed, and what it leaves behind is ended and said to have been there.

    Most of its children die with it, sooner than an interpreter starts on a busy machine. One that
    a signal holds is sure to be left: the tracker that Python's multiprocessing starts.
    """
    pids = family(int(told(home)["pid"]))
    assert len(pids) >= 3
    (tracker,) = [
        pid for pid in pids if "resource_tracker" in " ".join(psutil.Process(pid).cmdline())
    ]
    os.kill(tracker, signal.SIGSTOP)
    os.kill(pids[0], signal.SIGKILL)
    assert "its main process ended while" in died(home, pids)["detail"]


def longest(home: Home) -> int:
    """The longest request that the engine itself says it takes."""
    with urllib.request.urlopen(f"{told(home)['url']}/v1/models", timeout=PATIENT_S) as answer:
        return int(json.load(answer)["data"][0]["max_model_len"])


def value(home: Home, option: str) -> object:
    """An option's value as ``llmtop options`` tells it."""
    listed = home.run("options", NAME, "--json").json["options"]
    return next(one["value"] for one in listed if one["name"] == option)


def died(home: Home, pids: list[int], within_s: float = PATIENT_S) -> dict[str, Any]:
    """What llmtop tells once it has seen the end; nothing of the engine may be left by then."""
    seen(lambda: told(home)["state"] not in ("ready", "unresponsive"), within_s)
    found = told(home)
    assert [pid for pid in pids if alive(pid)] == []
    assert found["state"] == "failed", found
    return found


def answers_follow_the_schema(home: Home, url: str) -> None:
    """A load of structured generation is served, and what its requests ask for is JSON that fits.

    The texts of a load are not kept, so one request of the same form is looked at by itself: a
    completion, where the load is of chats.
    """
    flags = ("--chat", "-c", "2", "-d", "1", "--prompt-tokens", "16", "--output-tokens", "60")
    done = home.run("load", NAME, *flags, "--json-schema", "builtin", "--json")
    assert done.code == 0, done.err
    assert done.json["requests"]["failed"] == 0, done.json["errors"]
    assert done.json["requests"]["ok"] >= 2
    asked = {
        "model": "small",
        "prompt": "The weather:",
        "max_tokens": 100,
        "response_format": response_format(load(BUILTIN)),
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENT_S) as answer:
        (choice,) = json.load(answer)["choices"]
    # As far as it came: this model of noise likes white space, which the grammar allows, and can
    # fill its whole answer with it.
    written = re.sub(r"\s+", "", choice["text"])
    begins = [f'{{"city":"{city}"' for city in ("Bergen", "Cairo", "Lima", "Osaka", "Perth")]
    assert written.startswith("{"), choice["text"]
    assert any(written.startswith(one) or one.startswith(written) for one in begins), written


def frozen_and_back(home: Home, pid: int) -> None:
    """A process that a signal holds shows as unresponsive, and as ready afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        seen(lambda: told(home)["state"] == "unresponsive")
        assert "stopped by a signal" in told(home)["detail"]
    finally:
        os.kill(pid, signal.SIGCONT)
    seen(lambda: told(home)["state"] == "ready")


def watcher_dies(home: Home, pid: int, signum: signal.Signals) -> None:
    """A dashboard that is killed leaves its engine as it is, and the next one takes it on."""
    with Terminal(command(), home.environ) as screen:
        screen.see(NAME)
        os.kill(screen.pid, signum)
        screen.wait()
    found = told(home)
    assert (found["state"], found["pid"]) == ("ready", pid)
    with Terminal(command(), home.environ) as screen:
        screen.see(lambda text: NAME in text and "ready" in text)
        screen.type("q")
        screen.see("leave")
        screen.type("\r")
        assert screen.wait() == 0
    assert told(home)["pid"] == pid
