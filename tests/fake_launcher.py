"""A second llmtop for tests of supervision: launches the fake engine from a process of its own.

Arguments: state folder, engine name, port, and the fake engine's own flags. It prints one line,
"launched PID" or "refused: MESSAGE", and stays until its standard input ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter, MetricText
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Reading
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.supervisor import Supervisor

ENGINE = Path(__file__).with_name("fake_engine.py")


def command(spec: LaunchSpec) -> tuple[str, ...]:
    return (sys.executable, str(ENGINE), "--port", str(spec.port), *spec.args)


def environment(spec: LaunchSpec, socket: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    return {"LLMTOP_LIVE_SOCKET": str(socket)}


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    return Reading(time, elapsed)


def main() -> None:
    # Under nohup it would be ignored, and inherited so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    root, name, port, *args = sys.argv[1:]
    adapter = Adapter("fake", "Fake", 8000, command, environment, read, (), ())
    state = StateDirectory(Path(root), Path(root) / "sockets")
    supervisor = Supervisor(state, {"fake": adapter}, environ=os.environ)
    try:
        record = supervisor.launch(
            LaunchSpec("fake", name, "tiny", "127.0.0.1", int(port), args=tuple(args))
        )
        print(f"launched {record.pid}", flush=True)
    except LlmtopError as error:
        print(f"refused: {error.message}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
