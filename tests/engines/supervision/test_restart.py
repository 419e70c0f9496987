"""Restarts with real processes: the new configuration, or the last good one, and no secret lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.records import EngineRecord, LaunchSpec, State
from llmtop.engines.host.log_reader import older
from llmtop.engines.host.processes import Identity, Processes
from llmtop.engines.registry import ADAPTERS
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.launch_context import LaunchContextLost
from llmtop.engines.supervision.restart import Restarted, RestartFailed, restart, roll
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.engines.tuning import argv_editor
from llmtop.values import replace
from tests.engines.supervision.fake_adapter import FAKE
from tests.llmtop_process import free_port
from tests.tiers import first

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
SECRET = "sk-very-secret-1234"


def make(state: StateDirectory, **environ: str) -> Supervisor:
    return Supervisor(state, {**ADAPTERS, "fake": FAKE}, environ={**os.environ, **environ})


@pytest.fixture
def supervisor(state: StateDirectory) -> Supervisor:
    return make(state)


def simulated(supervisor: Supervisor, *args: str, name: str = "a") -> EngineRecord:
    quick = ("--startup-s", "0", *args)
    spec = LaunchSpec("sim", name, "llama-3.1-8b", "127.0.0.1", free_port(), args=quick)
    return supervisor.wait_ready(supervisor.launch(spec), DEADLINE_S).record


def fake(supervisor: Supervisor, *args: str) -> EngineRecord:
    spec = LaunchSpec("fake", "a", "tiny", "127.0.0.1", free_port(), args=args)
    return supervisor.wait_ready(supervisor.launch(spec), DEADLINE_S).record


def again(supervisor: Supervisor, record: EngineRecord, *flags: str, **changes: int) -> Restarted:
    origin = supervisor.origin(record)
    args = argv_editor.with_options(ADAPTERS["sim"], origin.spec.args, changes)
    spec = replace(origin.spec, args=argv_editor.with_flags(args, flags))
    return restart(supervisor, record, spec, origin, ready_timeout_s=DEADLINE_S)


def everything_on_disk(state: StateDirectory) -> str:
    files = [path for path in state.root.rglob("*") if path.is_file()]
    assert any(path.name == "record.json" for path in files)
    # The fake engine prints its arguments into its log itself, as vLLM does: that is not ours.
    ours = [path for path in files if not path.name.startswith("engine.log")]
    starts = [
        line
        for path in files
        if path.name.startswith("engine.log")
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("=== llmtop")
    ]
    return "\n".join([*(path.read_text(errors="replace") for path in ours), *starts])


def arguments(record: EngineRecord) -> list[str]:
    return Path(f"/proc/{record.pid}/cmdline").read_text().split("\0")


def is_dead(pid: int) -> bool:
    return Processes().entry(pid) is None


def test_a_restart_keeps_name_port_and_arguments_and_changes_one(supervisor: Supervisor) -> None:
    old = simulated(supervisor, "--max-num-seqs", "64", "--max-model-len=8192")
    phases: list[State] = []
    origin = supervisor.origin(old)
    spec = replace(
        origin.spec,
        args=argv_editor.with_options(ADAPTERS["sim"], origin.spec.args, {"max_model_len": 4096}),
    )
    done = restart(
        supervisor, old, spec, origin, on_phase=lambda status: phases.append(status.state)
    )
    new = done.record
    assert not done.rolled_back
    assert (new.name, new.url) == (old.name, old.url) == (old.name, done.url_before)
    assert new.pid != old.pid and is_dead(old.pid)
    assert new.spec.args == ("--startup-s", "0", "--max-num-seqs", "64", "--max-model-len", "4096")
    assert "4096" in arguments(new)
    assert supervisor.status(new).state is State.READY and phases[-1] is State.READY
    assert 0 < done.down_s <= done.took_s
    # What the one before wrote is still there, each start with its own line.
    log = Path(new.log_path).read_text()
    assert log.count("=== llmtop ") == 2 and "--max-model-len=8192" in log
    supervisor.stop(new)


@pytest.mark.more
def test_what_does_not_start_makes_room_for_what_ran(supervisor: Supervisor) -> None:
    old = simulated(supervisor, "--max-num-seqs", "64")
    done = again(supervisor, old, "--misbehave", "fail-start", max_model_len=4096)
    assert done.rolled_back
    assert "KV cache" in done.failure or "memory" in done.failure
    assert done.advice
    assert done.excerpt
    now = done.record
    assert now.spec.args == old.spec.args and now.url == old.url
    assert supervisor.status(now).state is State.READY
    assert len(Processes().members(_identity(now), Path(now.log_path))) == 1
    supervisor.stop(now)


@pytest.mark.more
def test_an_impossible_flag_names_itself(supervisor: Supervisor) -> None:
    old = simulated(supervisor)
    done = again(supervisor, old, "--no-such-flag")
    assert "--no-such-flag" in done.failure
    assert supervisor.status(done.record).state is State.READY
    supervisor.stop(done.record)


@pytest.mark.more
def test_one_that_is_never_ready_is_ended_and_the_last_one_comes_back(
    supervisor: Supervisor,
) -> None:
    old = fake(supervisor)
    origin = supervisor.origin(old)
    spec = replace(origin.spec, args=("--never-listen",))
    done = restart(supervisor, old, spec, origin, ready_timeout_s=3.0)
    assert "not ready after 3 s" in done.failure
    assert "--never-listen" not in arguments(done.record)
    supervisor.stop(done.record)


def test_what_is_wrong_beforehand_touches_nothing(supervisor: Supervisor) -> None:
    old = simulated(supervisor)
    origin = supervisor.origin(old)
    with pytest.raises(UsageError):
        restart(supervisor, old, replace(origin.spec, model="/no/such/model"), origin)
    with pytest.raises(LlmtopError):
        restart(supervisor, old, replace(origin.spec, program=("/no/such",)), origin)
    assert supervisor.find("a").pid == old.pid
    assert supervisor.status(old).state is State.READY
    supervisor.stop(old)


@pytest.mark.more
def test_when_nothing_starts_both_reasons_are_told(supervisor: Supervisor) -> None:
    old = simulated(supervisor)
    origin = supervisor.origin(old)
    origin = replace(origin, spec=replace(origin.spec, args=("--gone-meanwhile",)))
    with pytest.raises(RestartFailed) as failed:
        restart(supervisor, old, replace(origin.spec, args=("--new-flag",)), origin)
    assert "--new-flag" in failed.value.message and "--gone-meanwhile" in failed.value.message
    assert supervisor.status(old).state is State.FAILED


@pytest.mark.more
def test_one_that_has_ended_is_started_again_but_nothing_is_brought_back(
    supervisor: Supervisor,
) -> None:
    old = supervisor.stop(simulated(supervisor))
    with pytest.raises(LaunchFailed):
        again(supervisor, old, "--no-such-flag")
    assert supervisor.status(old).state is State.FAILED
    failed = supervisor.find("a")
    origin = supervisor.origin(failed)
    done = restart(supervisor, failed, old.spec, origin)
    assert supervisor.status(done.record).state is State.READY
    supervisor.stop(done.record)


@pytest.mark.more
def test_a_stop_by_somebody_else_is_not_undone(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    old = fake(supervisor)
    origin = supervisor.origin(old)

    def stop_it(status: object) -> None:
        other = make(state)
        if other.find("a").pid != old.pid:
            other.stop(other.find("a"))

    spec = replace(origin.spec, args=("--never-listen",))
    with pytest.raises(RestartFailed) as failed:
        restart(supervisor, old, spec, origin, on_phase=stop_it)
    assert "stopped by another process" in failed.value.message
    assert supervisor.status(old).state is State.STOPPED


@pytest.mark.parametrize("form", first(1, [("--api-key", SECRET), (f"--api-key={SECRET}",)]))
def test_a_secret_goes_along_and_never_to_disk(
    state: StateDirectory, form: tuple[str, ...]
) -> None:
    old = fake(make(state), *form, "--children", "0")
    assert SECRET not in str(old)
    # Another llmtop, with nothing in memory and another environment.
    other = make(state)
    origin = other.origin(old)
    assert SECRET not in repr(origin)
    spec = replace(origin.spec, args=argv_editor.with_flags(origin.spec.args, ("--health", "200")))
    done = restart(other, old, spec, origin)
    assert any(SECRET in word for word in arguments(done.record))
    assert SECRET not in everything_on_disk(state)
    # And back: the one that fails is given the secret too, and neither keeps it.
    bad = replace(spec, args=(*spec.args, "--die", "3"))
    done = restart(other, done.record, bad, other.origin(done.record))
    assert done.rolled_back and SECRET not in done.failure + "".join(done.excerpt)
    assert any(SECRET in word for word in arguments(done.record))
    assert SECRET not in everything_on_disk(state)
    other.stop(done.record)


def test_a_secret_that_died_with_its_process_is_said_to_be_lost(supervisor: Supervisor) -> None:
    old = supervisor.stop(fake(supervisor, "--api-key", SECRET))
    with pytest.raises(LaunchContextLost) as lost:
        supervisor.origin(old)
    assert "secrets" in lost.value.message and "llmtop run" in lost.value.hint


def test_the_environment_and_the_folder_of_the_first_start_go_along(
    state: StateDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(state, HF_TOKEN="hf-of-the-first-shell", PYTHONPATH=str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    old = fake(first)
    monkeypatch.chdir(tmp_path)
    other = make(state, HF_TOKEN="of another shell")
    origin = other.origin(old)
    done = restart(other, old, origin.spec, origin)
    given = Path(f"/proc/{done.record.pid}/environ").read_text().split("\0")
    assert "HF_TOKEN=hf-of-the-first-shell" in given
    assert os.readlink(f"/proc/{done.record.pid}/cwd") == str(tmp_path / "here")
    assert "hf-of-the-first-shell" not in everything_on_disk(state)
    other.stop(done.record)


def test_rolling_the_old_one_answers_until_the_new_one_does(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    old = simulated(supervisor, "--max-num-seqs", "64")
    seen: list[tuple[str, int, bool]] = []

    def hand_over(new: EngineRecord) -> None:
        both = [supervisor.status(one).state for one in (old, new)]
        seen.append((new.name, new.spec.port, both == [State.READY, State.READY]))
        assert new.replaces == "a"

    for turn in range(3):
        origin = supervisor.origin(old)
        spec = replace(
            origin.spec,
            args=argv_editor.with_options(
                ADAPTERS["sim"], origin.spec.args, {"max_num_seqs": turn + 8}
            ),
        )
        done = roll(supervisor, old, spec, origin, hand_over)
        new = done.record
        name, port, both_ready = seen[-1]
        assert both_ready and name != "a"
        assert new.name == "a" and new.spec.port == port != old.spec.port
        assert done.url_before == old.url != new.url
        assert is_dead(old.pid)
        assert [record.name for record in supervisor.records()] == ["a"]
        assert supervisor.find("a") == new and new.replaces is None
        # Its log came along, with the log of the one before beside it, and it goes on writing.
        log = Path(new.log_path)
        assert log == state.log_path("a")
        assert f"--max-num-seqs {turn + 8}" in log.read_text()
        assert "=== llmtop" in older(log).read_text()
        assert Processes().writers(log) == [_identity(new)]
        assert new.live_socket is not None and Path(new.live_socket).is_socket()
        assert make(state).status(new).state is State.READY
        old = new
    assert supervisor.stop(old).ended_at is not None


def test_rolling_to_what_does_not_start_never_touches_the_old_one(supervisor: Supervisor) -> None:
    old = simulated(supervisor)
    origin = supervisor.origin(old)
    spec = replace(origin.spec, args=(*origin.spec.args, "--misbehave", "fail-start"))
    done = roll(supervisor, old, spec, origin, lambda new: pytest.fail("it never was ready"))
    assert done.rolled_back and done.failure and done.down_s == 0
    assert done.record.pid == old.pid
    assert supervisor.status(old).state is State.READY
    assert [record.name for record in supervisor.records()] == ["a"]
    supervisor.stop(old)


@pytest.mark.more
def test_a_hand_over_that_fails_leaves_the_old_one_alone(supervisor: Supervisor) -> None:
    old = simulated(supervisor)
    origin = supervisor.origin(old)
    began: list[EngineRecord] = []

    def hand_over(new: EngineRecord) -> None:
        began.append(new)
        raise LlmtopError("the load cannot move")

    with pytest.raises(LlmtopError, match="cannot move"):
        roll(supervisor, old, origin.spec, origin, hand_over)
    assert is_dead(began[0].pid)
    assert supervisor.status(old).state is State.READY
    assert [record.name for record in supervisor.records()] == ["a"]
    supervisor.stop(old)


def test_rolling_needs_gpus_of_its_own(supervisor: Supervisor) -> None:
    # Not the simulator's record: whether it is simulated is what decides.
    old = replace(simulated(supervisor), simulated=False)
    origin = supervisor.origin(old)
    for gpus in ((), (0,)):
        mine = replace(old, spec=replace(old.spec, gpus=gpus))
        with pytest.raises(UsageError) as refused:
            roll(
                supervisor,
                mine,
                replace(origin.spec, gpus=(0,)),
                origin,
                lambda new: None,
            )
        assert "--gpus" in refused.value.hint
    supervisor.stop(old)


def test_rolling_away_from_one_that_does_not_run_is_refused(supervisor: Supervisor) -> None:
    old = supervisor.stop(simulated(supervisor))
    origin = supervisor.origin(old)
    with pytest.raises(UsageError, match="does not run"):
        roll(supervisor, old, origin.spec, origin, lambda new: None)


@pytest.mark.more
def test_a_socket_that_a_running_engine_kept_is_not_taken_from_it(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    old = simulated(supervisor)
    origin = supervisor.origin(old)
    new = roll(supervisor, old, origin.spec, origin, lambda new: None).record
    with pytest.raises(LlmtopError, match="socket"):
        simulated(supervisor, name="a-new")
    assert new.live_socket is not None and Path(new.live_socket).is_socket()
    supervisor.stop(new)


def _identity(record: EngineRecord) -> Identity:
    from llmtop.engines.host.processes import identity

    return identity(record)
