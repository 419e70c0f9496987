"""Changes live options of a real SGLang on a real GPU through llmtop. Prints and writes JSON.

usage: python -m bench.gpu.sglang_options MODEL --python PATH --out RESULT.json [-- more flags]

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random (``--load-format
dummy``). The batch limit and the prefill chunk are lowered and raised while 256 streams run in a
closed loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.commands import LLMTOP, StepFailed, llmtop, timed, until
from bench.gpu.supervision import LENGTHS

FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--context-length", "8192", "--max-running-requests", "256"),
)
STREAMS = 256
LOAD_S = 75
SETTLE_S = 4.0


def sample(window_s: float = 1.0) -> dict[str, Any]:
    """The sample of ``llmtop once`` over a window of ``window_s`` seconds."""
    found: dict[str, Any] = llmtop("once", "sgl", "--window", str(window_s), "--json")
    return found


def change(option: str, value: int, reached: tuple[str, int] | None) -> dict[str, Any]:
    """Make one change under load. Returns its result and the numbers afterwards.

    reached: the expected number of running requests, as ("at most" or "at least", number).
    """
    seconds, document = timed("set", "sgl", f"{option}={value}", "--json")
    (done,) = document["changes"]
    step = {key: done[key] for key in ("option", "from", "to", "outcome", "reason", "ack_ms")}
    if reached is not None:
        word, many = reached

        def there() -> bool:
            running = sample(0.5)["running"]
            return bool(running <= many if word == "at most" else running >= many)

        step["seen_s"] = until(there, 30)
    time.sleep(SETTLE_S)
    now = sample(4.0)
    return step | {
        "command_s": seconds,
        "running": now["running"],
        "waiting": now["waiting"],
        "output_tokens_per_s": now["output_tokens_per_s"],
        "prompt_tokens_per_s": now["prompt_tokens_per_s"],
    }


def main() -> None:
    """Start the engine and a load, change options, and stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs="*")
    args = parser.parse_intermixed_args()
    result: dict[str, Any] = {"steps": []}

    def keep(name: str, value: Any) -> None:
        result[name] = value
        args.out.write_text(json.dumps(result, indent=1))
        print(f"{name}: {json.dumps(value)}", flush=True)

    start_s, record = timed(
        *("run", "sglang", args.model, "--python", args.python, "--name", "sgl"),
        *("--detach", "--json", "--", *FLAGS, *args.flags),
    )
    keep("start", {"start_s": start_s, "version": record["version"], "state": record["state"]})
    try:
        keep("options", llmtop("options", "sgl", "--json")["options"])
        with subprocess.Popen(
            [*LLMTOP, "load", "sgl", "-c", str(STREAMS), "-d", str(LOAD_S), *LENGTHS, "--json"],
            stdout=subprocess.PIPE,
            text=True,
        ) as load:
            until(lambda: sample(0.5)["running"] >= STREAMS * 0.9, 60)
            keep("under load", sample(4.0))
            for option, value, reached in (
                ("max_running_requests", 32, ("at most", 32)),
                ("max_running_requests", 256, ("at least", 200)),
                ("chunked_prefill_size", 1024, None),
                ("chunked_prefill_size", 8192, None),
            ):
                try:
                    step = change(option, value, reached)
                except StepFailed as error:
                    step = {"option": option, "to": value, "error": str(error)}
                keep("steps", [*result["steps"], step])
            out, _ = load.communicate(timeout=300)
        keep("load", json.loads(out))
    finally:
        stop_s, record = timed("stop", "sgl", "--json")
        keep("stop", {"stop_s": stop_s, "state": record["state"]})


if __name__ == "__main__":
    main()
