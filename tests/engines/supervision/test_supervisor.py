"""Supervision with real processes: what an operator relies on when engines and llmtops die."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.records import EngineRecord, LaunchSpec, State
from llmtop.engines.host.processes import Processes
from llmtop.engines.state.state_directory import StateDirectory, StateError
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.preflight import LaunchRefused
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.values import replace
from tests.engines.supervision.fake_adapter import FAKE
from tests.folders import TESTS
from tests.llmtop_process import free_port
from tests.waiting import until

pytestmark = pytest.mark.process

DEADLINE_S = 30.0  # generous: what is waited for comes at once on a machine that is not loaded

Launch = Callable[..., EngineRecord]


def make(state: StateDirectory, **changes: object) -> Supervisor:
    return Supervisor(state, {"fake": FAKE}, environ=os.environ, **changes)  # type: ignore[arg-type]


@pytest.fixture
def supervisor(state: StateDirectory) -> Supervisor:
    return make(state)


def spec(*args: str, name: str = "a", port: int | None = None, **changes: object) -> LaunchSpec:
    asked = LaunchSpec("fake", name, "tiny", "127.0.0.1", port or free_port(), args=args)
    return replace(asked, **changes)


def is_dead(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def session_of(record: EngineRecord) -> list[int]:
    """Pids of all living processes in the engine's session."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == record.pid and not is_dead(pid):
                found.append(pid)
    return found


def left_of(record: EngineRecord) -> list[int]:
    """Pids of all living processes that write the engine's log, found apart from llmtop's way."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if not is_dead(int(folder.name)) and os.readlink(folder / "fd/1") == record.log_path:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def kill(pid: int, signum: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, signum)


# The life of an engine


@pytest.mark.parametrize("order", ["", "FASTEST_FIRST"])
def test_gpus_are_counted_as_nvidia_smi_counts_them_unless_the_operator_chose(
    state: StateDirectory, order: str
) -> None:
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    environ |= {"CUDA_DEVICE_ORDER": order} if order else {}
    record = Supervisor(state, {"fake": FAKE}, environ=environ).launch(spec(gpus=(1, 3)))
    given = Path(f"/proc/{record.pid}/environ").read_text().split("\0")
    assert "CUDA_VISIBLE_DEVICES=1,3" in given
    assert f"CUDA_DEVICE_ORDER={order or 'PCI_BUS_ID'}" in given


def test_launch_ready_stop_leaves_nothing(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec("--children", "2"))
    assert state.load("a") == record
    assert supervisor.status(record).state is State.STARTING
    status = supervisor.wait_ready(record, DEADLINE_S)
    assert status.state is State.READY
    assert status.record.ready_at is not None
    assert status.record.startup_s is not None and 0 < status.record.startup_s < DEADLINE_S
    assert status.record.simulated
    assert len(left_of(record)) == 3

    stopped = supervisor.stop(record)
    assert left_of(record) == []
    assert stopped.stop_requested_at is not None and stopped.ended_at is not None
    assert stopped.exit_code == -signal.SIGTERM
    assert supervisor.status(record).state is State.STOPPED
    assert supervisor.find("a").ended_at == stopped.ended_at


def test_phases_and_the_last_start_are_shown(supervisor: Supervisor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    said = ("--say", "Loading shards: 3/7", "--say", "Capturing graphs", "--wait-for", str(go))
    record = supervisor.launch(spec(*said))
    assert record.previous_startup_s is None
    seen: list[str] = []

    def on_phase(status: object) -> None:
        seen.append(getattr(status, "phase", ""))
        if seen[-1] == "graphs":
            go.touch()

    done = supervisor.wait_ready(record, DEADLINE_S, on_phase)
    assert seen[-2:] == ["graphs", ""]
    supervisor.stop(record)
    again = supervisor.launch(spec())
    assert again.previous_startup_s == done.record.startup_s
    supervisor.stop(again)


def test_stop_kills_all_that_ignore_term(supervisor: Supervisor) -> None:
    record = supervisor.launch(spec("--ignore-term", "--children", "2", "--grandchild-session"))
    supervisor.wait_ready(record, DEADLINE_S)
    until(lambda: len(left_of(record)) == 4)
    stopped = supervisor.stop(record, grace_s=0.5)
    assert left_of(record) == []
    assert stopped.exit_code == -signal.SIGKILL
    assert supervisor.status(record).state is State.STOPPED


def test_stop_removes_the_live_socket(supervisor: Supervisor) -> None:
    record = supervisor.launch(spec())
    assert record.live_socket is not None
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(record.live_socket)
    supervisor.stop(record)
    assert not Path(record.live_socket).exists()


def test_a_stopped_engine_does_not_wait_for_the_grace(supervisor: Supervisor) -> None:
    """One that SIGSTOP holds would not see SIGTERM."""
    record = supervisor.launch(spec())
    supervisor.wait_ready(record, DEADLINE_S)
    kill(record.pid, signal.SIGSTOP)
    assert supervisor.stop(record, grace_s=DEADLINE_S).exit_code == -signal.SIGTERM


def test_a_name_can_be_used_again_once_its_engine_ended(supervisor: Supervisor) -> None:
    first = supervisor.launch(spec("--die", "3"))
    with pytest.raises(LaunchFailed):
        supervisor.wait_ready(first, DEADLINE_S)
    second = supervisor.launch(spec())
    assert second.pid != first.pid and second.cause is None
    supervisor.wait_ready(second, DEADLINE_S)
    with pytest.raises(UsageError, match="was started again"):
        supervisor.stop(first)
    assert supervisor.status(second).state is State.READY
    supervisor.stop(second)


# Bad input


def test_unknown_names_are_answered_with_those_there_are(supervisor: Supervisor) -> None:
    with pytest.raises(UsageError) as none:
        supervisor.find("llama")
    assert "llmtop run" in none.value.hint
    supervisor.stop(supervisor.launch(spec(name="llama-8b")))
    with pytest.raises(UsageError) as near:
        supervisor.find("lama-8b")
    assert "'llama-8b'" in near.value.hint
    assert supervisor.names == ["llama-8b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "vlm"}, "'vlm' is not an engine"),
        ({"name": "../x"}, "cannot be an engine's name"),
        ({"model": "/no/such/model"}, "no model at /no/such/model"),
        ({"port": 70000}, "70000 is not a TCP port"),
        ({"host": "203.0.113.7"}, "203.0.113.7 is not an address of this machine"),
        ({"program": ("no-such-engine",)}, "'no-such-engine' for Fake Engine is not on the PATH"),
        ({"program": ("/no/such/bin",)}, "no program at /no/such/bin"),
        ({"program": (__file__,)}, "is not an executable program"),
    ],
)
def test_bad_input_names_the_cause_and_starts_nothing(
    supervisor: Supervisor, change: dict[str, object], message: str
) -> None:
    with pytest.raises(LlmtopError) as refused:
        supervisor.launch(spec(**change))  # type: ignore[arg-type]
    assert message in refused.value.message
    assert refused.value.hint
    assert supervisor.records() == []


def test_a_file_that_is_no_program_leaves_no_record(supervisor: Supervisor, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o700)
    with pytest.raises(LaunchFailed, match="could not be started"):
        supervisor.launch(spec(program=(str(broken),)))
    assert supervisor.records() == []


def test_a_taken_port_is_refused_with_its_holder(supervisor: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LaunchRefused) as refused:
            supervisor.launch(spec(port=port))
    assert f"port {port} is in use by pid {os.getpid()}" in refused.value.message
    assert "--port" in refused.value.hint


def test_the_port_of_an_engine_that_has_not_bound_it_yet_is_taken(supervisor: Supervisor) -> None:
    first = supervisor.launch(spec("--never-listen", name="first"))
    with pytest.raises(LaunchRefused, match="belongs to the engine 'first'"):
        supervisor.launch(spec(name="second", port=first.spec.port))
    supervisor.stop(first)


def test_a_port_taken_between_check_and_bind_is_explained(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    record = supervisor.launch(spec("--wait-for", str(go)))
    with socket.create_server(("127.0.0.1", record.spec.port)):
        # Somebody answers on that port, but it is not the engine.
        assert supervisor.status(record).state is State.STARTING
        go.touch()
        with pytest.raises(LaunchFailed) as failed:
            supervisor.wait_ready(record, DEADLINE_S)
    assert "its port was taken by another process" in failed.value.message
    assert any("Address already in use" in line for line in failed.value.excerpt)


def test_another_server_on_the_port_does_not_make_an_engine_ready(state: StateDirectory) -> None:
    supervisor = make(state, probe=lambda url, timeout_s: 200)
    record = supervisor.launch(spec("--never-listen"))
    with socket.create_server(("127.0.0.1", record.spec.port)):
        assert supervisor.status(record).state is State.STARTING
    with pytest.raises(LaunchFailed, match="not ready after 0 s"):
        supervisor.wait_ready(record, 0.0)
    supervisor.stop(record)


def test_a_living_name_is_refused(supervisor: Supervisor) -> None:
    record = supervisor.launch(spec())
    with pytest.raises(LaunchRefused, match="is already running"):
        supervisor.launch(spec())
    supervisor.stop(record)


# Death, and its cause


def test_a_failed_start_is_explained_from_the_whole_log(supervisor: Supervisor) -> None:
    said = ["KV cache needs 80.5 GiB, there are 12", *(f"noise {i}" for i in range(50))]
    flags = [flag for line in said for flag in ("--say", line)]
    record = supervisor.launch(spec(*flags, "--die", "1"))
    with pytest.raises(LaunchFailed) as failed:
        supervisor.wait_ready(record, DEADLINE_S)
    assert failed.value.message == "'a' did not start: the KV cache does not fit: it needs 80.5 GiB"
    assert failed.value.hint == "lower the context length"
    assert said[0] in failed.value.excerpt
    found = supervisor.find("a")
    assert (found.exit_code, found.stop_requested_at) == (1, None)
    assert supervisor.status(found).state is State.FAILED


def test_exit_code_zero_is_no_clean_stop(supervisor: Supervisor, tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    record = supervisor.launch(spec("--crash-when", str(crash), "--exit-code", "0"))
    supervisor.wait_ready(record, DEADLINE_S)
    crash.touch()
    until(lambda: supervisor.status(record).state is State.FAILED)
    assert supervisor.find("a").cause == "it ended by itself with exit code 0"


def test_children_of_a_killed_leader_are_ended(supervisor: Supervisor) -> None:
    record = supervisor.launch(spec("--children", "2", "--ignore-term", "--grandchild-session"))
    supervisor.wait_ready(record, DEADLINE_S)
    until(lambda: len(left_of(record)) == 4)
    kill(record.pid)
    until(lambda: supervisor.status(record).state is State.FAILED)
    assert left_of(record) == []
    found = supervisor.find("a")
    assert found.exit_code == -signal.SIGKILL
    assert found.cause is not None and "killed (SIGKILL)" in found.cause


def test_an_orphan_that_writes_no_log_is_ended(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    record = supervisor.launch(spec("--quiet-child"))
    supervisor.wait_ready(record, DEADLINE_S)
    (quiet,) = [pid for pid in session_of(record) if pid != record.pid]
    kill(record.pid)
    until(lambda: make(state).status(record).state is State.FAILED)
    assert is_dead(quiet)
    cause = make(state).find("a").cause
    assert cause is not None and "main process ended while another process" in cause


@pytest.mark.parametrize(("since", "cause"), [(120, "main process ended"), (5, "no such luck")])
def test_an_error_that_it_long_outlived_is_not_why_it_was_gone(
    supervisor: Supervisor, state: StateDirectory, since: int, cause: str
) -> None:
    record = supervisor.launch(spec("--quiet-child"))
    supervisor.wait_ready(record, DEADLINE_S)
    with open(record.log_path, "a") as log:
        log.write("Traceback (most recent call last):\n  boom()\nValueError: no such luck\n")
        log.writelines(f"INFO request {number} served\n" for number in range(since))
    kill(record.pid)
    until(lambda: make(state).status(record).state is State.FAILED)
    assert cause in (make(state).find("a").cause or "")


def test_a_log_of_terminal_escapes_and_megabyte_lines_is_shown_safely(
    supervisor: Supervisor,
) -> None:
    record = supervisor.launch(spec("--log-noise", "--die", "2"))
    with pytest.raises(LaunchFailed) as failed:
        supervisor.wait_ready(record, DEADLINE_S)
    shown = "\n".join(failed.value.excerpt)
    assert "red alert" in shown
    assert all(line.isprintable() and len(line) < 4100 for line in failed.value.excerpt)


def test_secrets_in_arguments_are_neither_kept_nor_shown(
    supervisor: Supervisor, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-very-secret-1234"
    record = supervisor.launch(spec("--api-key", secret, "--die", "1"))
    with pytest.raises(LaunchFailed) as failed:
        supervisor.wait_ready(record, DEADLINE_S)
    # The fake engine prints its arguments, as vLLM does.
    assert secret not in "\n".join(failed.value.excerpt)
    assert "api_key" in "\n".join(failed.value.excerpt)
    assert secret not in (state.folder("a") / "record.json").read_text()
    assert secret not in state.log_path("a").read_text().splitlines()[0]
    assert "[hidden]" in state.log_path("a").read_text().splitlines()[0]


# Other llmtops, and the end of this one


def test_another_supervisor_adopts(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec())
    supervisor.wait_ready(record, DEADLINE_S)
    other = make(state)
    assert [other.status(record).state for record in other.records()] == [State.READY]
    stopped = other.stop(other.find("a"))
    assert stopped.exit_code is None  # only its parent gets to know
    assert left_of(record) == []
    status = supervisor.status(record)
    assert (status.state, status.record.exit_code) == (State.STOPPED, -signal.SIGTERM)


def test_an_engine_that_died_unseen_is_lost(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec())
    kill(record.pid)
    until(lambda: left_of(record) == [])
    other = make(state)
    status = other.status(record)
    assert (status.state, status.phase) == (
        State.LOST,
        "it has ended while llmtop did not watch it",
    )
    # Its parent can tell more.
    assert supervisor.status(record).state is State.FAILED
    assert other.status(record).state is State.FAILED


def test_a_reused_pid_is_not_the_engine(supervisor: Supervisor, state: StateDirectory) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record = supervisor.launch(spec())
        supervisor.stop(record)
        ticks = Processes().entry(bystander.pid)
        assert ticks is not None
        forged = replace(
            record, pid=bystander.pid, start_ticks=ticks.start_ticks - 100, stop_requested_at=None
        )
        state.save(forged)
        assert make(state).status(forged).state is State.LOST
        assert make(state).stop(forged).ended_at is not None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_record_of_an_earlier_boot_is_lost(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec())
    supervisor.wait_ready(record, DEADLINE_S)
    state.save(replace(record, boot_id="an-earlier-one"))
    status = make(state).status(record)
    assert (status.state, status.phase) == (State.LOST, "the machine was restarted")
    assert left_of(record) == [record.pid]
    state.save(record)
    supervisor.stop(record)


def test_a_clock_that_is_stepped_back_changes_no_state(state: StateDirectory) -> None:
    now = [time.time()]
    supervisor = make(state, clock=lambda: now[0])
    record = supervisor.launch(spec())
    now[0] -= 86400
    status = supervisor.wait_ready(record, DEADLINE_S)
    assert status.record.startup_s is not None and 0 < status.record.startup_s < DEADLINE_S
    now[0] -= 86400
    assert make(state).status(record).state is State.READY
    supervisor.stop(record)
    assert left_of(record) == []


def launcher(state: StateDirectory, name: str, port: int, *args: str) -> subprocess.Popen[str]:
    program = [sys.executable, str(TESTS / "fake_launcher.py")]
    return subprocess.Popen(
        [*program, str(state.root), name, str(port), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_llmtops_start_one_name_at_once(state: StateDirectory, supervisor: Supervisor) -> None:
    racers = [launcher(state, "a", free_port()) for _ in range(2)]
    said = sorted(first_line(racer) for racer in racers)
    for racer in racers:
        racer.communicate()
    assert said[0].startswith("launched ")
    assert "another llmtop is starting" in said[1] or "is already running" in said[1]
    record = supervisor.find("a")
    assert left_of(record) == [record.pid] == [int(said[0].split()[1])]
    supervisor.stop(record)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGKILL])
def test_an_engine_outlives_its_llmtop(
    state: StateDirectory, supervisor: Supervisor, signum: signal.Signals
) -> None:
    llmtop = launcher(state, "a", free_port())
    assert first_line(llmtop).startswith("launched ")
    os.killpg(llmtop.pid, signum)
    llmtop.communicate()
    assert llmtop.returncode == -signum
    record = supervisor.find("a")
    assert supervisor.wait_ready(record, DEADLINE_S).state is State.READY
    supervisor.stop(record)
    assert left_of(record) == []


def test_a_launch_that_was_cut_short_is_found_by_its_log(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    record = supervisor.launch(spec())
    # As if llmtop had died between the start and writing down the pid.
    state.save(replace(record, pid=0, start_ticks=0))
    other = make(state)
    found = other.find("a")
    assert (found.pid, found.start_ticks) == (record.pid, record.start_ticks)
    other.stop(found)
    state.save(replace(record, pid=0, start_ticks=0))
    status = other.status(other.find("a"))
    assert status.state is State.FAILED
    assert "llmtop exited while it started" in status.phase


# An engine that hangs


def test_sigstop_shows_as_unresponsive_and_back(supervisor: Supervisor) -> None:
    record = supervisor.launch(spec())
    supervisor.wait_ready(record, DEADLINE_S)
    kill(record.pid, signal.SIGSTOP)
    begin = time.monotonic()
    until(lambda: supervisor.status(record).state is State.UNRESPONSIVE)
    assert time.monotonic() - begin < 5
    kill(record.pid, signal.SIGCONT)
    until(lambda: supervisor.status(record).state is State.READY)
    supervisor.stop(record)


def test_a_child_that_a_signal_holds_is_named_though_the_front_end_answers(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    record = supervisor.launch(spec("--children", "1"))
    supervisor.wait_ready(record, DEADLINE_S)
    (child,) = [pid for pid in left_of(record) if pid != record.pid]
    assert supervisor.status(record).state is State.READY
    kill(child, signal.SIGSTOP)
    begin = time.monotonic()
    # Who watches already, and who comes newly to it.
    words = f"(pid {child}) is stopped by a signal"
    until(lambda: words in supervisor.status(record).phase)
    assert supervisor.status(record).state is State.UNRESPONSIVE
    assert words in make(state).status(record).phase
    assert time.monotonic() - begin < 5
    kill(child, signal.SIGCONT)
    until(lambda: supervisor.status(record).state is State.READY)
    supervisor.stop(record)


def test_silence_counts_after_three_seconds(state: StateDirectory) -> None:
    now, answer = [100.0], [200]
    supervisor = make(state, monotonic=lambda: now[0], probe=lambda url, timeout_s: answer[0])
    record = supervisor.launch(spec())
    until(lambda: supervisor.status(record).state is State.READY)
    answer[0] = 503
    now[0] += 2.9
    assert supervisor.status(record).state is State.READY
    now[0] += 0.2
    status = supervisor.status(record)
    assert (status.state, status.phase) == (State.UNRESPONSIVE, "/health answers 503")
    # An llmtop that comes newly to it has no three seconds of its own to wait.
    assert make(state, probe=lambda url, timeout_s: None).status(record).state is (
        State.UNRESPONSIVE
    )
    answer[0] = 200
    assert supervisor.status(record).state is State.READY
    make(state).stop(record)


def test_stop_and_status_may_run_at_once(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec("--children", "1", "--ignore-term"))
    supervisor.wait_ready(record, DEADLINE_S)
    other = make(state)
    seen: set[State] = set()
    stopping = threading.Thread(target=supervisor.stop, args=(record, 1.0))
    stopping.start()
    while stopping.is_alive():
        seen.add(other.status(record).state)
        time.sleep(0.01)
    stopping.join()
    assert seen <= {State.READY, State.STOPPING, State.STOPPED} and State.STOPPING in seen
    assert other.status(record).state is State.STOPPED


# A disk that takes nothing


class Disk:
    """Writes files until it is full."""

    def __init__(self) -> None:
        self.writes_left = 1000

    def write(self, path: Path, data: bytes) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(data)


@pytest.mark.parametrize("room", [0, 1])
def test_a_launch_that_cannot_be_recorded_is_undone(tmp_path: Path, room: int) -> None:
    disk = Disk()
    full = StateDirectory(tmp_path / "full", tmp_path / "sockets", write=disk.write)
    supervisor = make(full)
    disk.writes_left = room
    with pytest.raises(StateError, match="no space left on device"):
        supervisor.launch(spec("--children", "1"))
    log = full.log_path("a")
    assert Processes().writers(log) == []
    assert supervisor.records() == []


def test_a_disk_that_fills_up_later_changes_no_state(tmp_path: Path) -> None:
    disk = Disk()
    full = StateDirectory(tmp_path / "full", tmp_path / "sockets", write=disk.write)
    supervisor = make(full)
    record = supervisor.launch(spec())
    disk.writes_left = 0
    status = supervisor.wait_ready(record, DEADLINE_S)
    assert supervisor.status(record).state is State.READY
    assert status.record.ready_at == supervisor.status(record).record.ready_at
    assert full.load("a") == record
    disk.writes_left = 1000
    supervisor.status(record)
    assert full.load("a") == status.record
    disk.writes_left = 0
    assert supervisor.stop(record).ended_at is not None
    assert supervisor.status(record).state is State.STOPPED


def test_a_newer_record_is_never_overwritten(supervisor: Supervisor, state: StateDirectory) -> None:
    record = supervisor.launch(spec())
    path = state.folder("a") / "record.json"
    newer = b'{"schema": 2, "engine": {"name": "a"}}'
    path.write_bytes(newer)
    assert supervisor.wait_ready(record, DEADLINE_S).state is State.READY
    with pytest.raises(StateError, match="newer llmtop"):
        make(state).find("a")
    supervisor.stop(record)
    assert supervisor.status(record).state is State.STOPPED
    assert path.read_bytes() == newer


def test_a_damaged_record_does_not_hide_the_others(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    good = supervisor.launch(spec(name="good"))
    bad = supervisor.launch(spec(name="bad"))
    path = state.folder("bad") / "record.json"
    path.write_bytes(b'{"schema": 1, "rec')
    assert supervisor.names == ["good"]
    assert [problem.name for problem in supervisor.problems()] == ["bad"]
    with pytest.raises(StateError, match="damaged"):
        make(state).launch(spec(name="bad"))
    assert path.read_bytes() == b'{"schema": 1, "rec'
    # Who still knows it goes on, and writes it anew.
    assert supervisor.wait_ready(bad, DEADLINE_S).state is State.READY
    assert supervisor.names == ["bad", "good"]
    assert path.with_name("record.json.damaged").read_bytes() == b'{"schema": 1, "rec'
    for record in (good, bad):
        supervisor.stop(record)
        assert left_of(record) == []
