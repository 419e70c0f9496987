"""Files of the state folder that several threads are the first to read, as `down` and `up` do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A process of its own for each try: what is done first can be done only once in each, and what went
# wrong was its death. Threads take turns as often as they can, so that they meet in it; without
# what prevents it four in ten such processes died.
TRIES = 8
FIRST_READS = """
import sys, threading, time
from pathlib import Path
from llmtop.engines.state.restart_journal import RestartJournal
from llmtop.engines.host.processes import Processes
from llmtop.engines.state.state_directory import StateDirectory

state = StateDirectory(Path(sys.argv[1]))
meet = threading.Barrier(8)

def read():
    meet.wait()
    state.scan()
    state.startups.seconds("sim m")
    RestartJournal(state, Processes(), time.time).of("one")

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_several_threads_may_read_first_without_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "one"
    folder.mkdir(parents=True)
    for name in ("record.json", "restart.json"):
        (folder / name).write_text('{"schema": 1, "record": {}, "intent": {}}')
    (tmp_path / "startups.json").write_text('{"startups": {}}')
    command = [sys.executable, "-X", "faulthandler", "-c", FIRST_READS, str(tmp_path)]
    for _ in range(TRIES):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
