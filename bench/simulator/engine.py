"""The simulated engine as a child process of a benchmark, and a request to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

MODULE = "llmtop.engines.simulated.simulator"


@contextmanager
def serving(*flags: str) -> Iterator[int]:
    """An engine that is ready; yields its port, and prints its warnings at the end."""
    command = [sys.executable, "-m", MODULE, "--port", "0", "--startup-s", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = next((one for one in process.stdout if "Serving on" in one), "")
            if not any("startup complete" in one for one in process.stdout):
                raise SystemExit("the engine did not start")
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.terminate()
            for line in process.stdout:
                if "WARNING" in line:
                    print(line.rstrip())


def completion(asked: Mapping[str, object]) -> bytes:
    """A request for a streamed answer, as it is sent."""
    body = json.dumps({**asked, "ignore_eos": True, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
