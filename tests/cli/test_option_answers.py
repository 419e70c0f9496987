"""What `set` and `options` say of an engine that is frozen or dead, and the notes of options."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmtop.cli.options.changes import entry as change_entry
from llmtop.cli.options.changes import print_change
from llmtop.cli.options.options import entry as option_entry
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.live_protocol import LiveError, LiveOption, LiveState
from llmtop.engines.core.options import Applies, Outcome
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.simulated import adapter
from llmtop.engines.tuning.change_plan import propose
from llmtop.operations.session import EngineSession
from llmtop.wording.sentences import why_silent
from tests.llmtop_process import Home, home_with_engine

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    quick = ("--startup-s", "0.2", "--max-num-seqs", "64")
    with home_with_engine(tmp_path_factory.mktemp("home"), "one", *quick) as home:
        yield home


def pid(home: Home) -> int:
    (found,) = home.run("ps", "--json").json["engines"]
    return int(found["pid"])


@contextmanager
def frozen(home: Home) -> Iterator[None]:
    whom = pid(home)
    os.kill(whom, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(whom, signal.SIGCONT)


def test_a_frozen_engine_is_said_to_be_frozen(home: Home) -> None:
    with frozen(home):
        done = home.run("set", "one", "max_num_seqs=16", "--json")
        listed = home.run("options", "one", "--json")
    assert done.code == 1
    (change,) = done.json["changes"]
    assert change["outcome"] == "refused"
    assert "one is frozen: stopped by a signal (SIGSTOP)" in change["reason"]
    assert "restart" not in change["reason"] and "restart" not in done.err
    options = {option["name"]: option for option in listed.json["options"]}
    # Somebody may have changed it since the start: the launch value is not shown as the value.
    assert (options["max_num_seqs"]["value"], options["max_num_seqs"]["launch"]) == (None, 64)
    assert options["max_num_seqs"]["applies"] == "live, up to the launch value"
    assert options["max_model_len"]["applies"] == "restart"
    assert "one is frozen" in listed.json["note"]


def test_what_needs_a_restart_still_says_so_while_it_is_frozen(home: Home) -> None:
    with frozen(home):
        done = home.run("set", "one", "max_model_len=4096")
    assert done.code == 1
    assert "takes effect only at a restart" in done.err


def test_a_dead_engine_is_said_to_be_dead(home: Home) -> None:
    os.kill(pid(home), signal.SIGKILL)
    done = home.run("set", "one", "max_num_seqs=16")
    assert done.code == 1
    assert "one " in done.err and "takes effect only at a restart" not in done.err
    assert "killed" in done.err or "lost" in done.err or "failed" in done.err


class Noted:
    """A live client whose option has a note, and that may be silent."""

    def __init__(self) -> None:
        self.silent = False

    async def get(self) -> LiveState:
        if self.silent:
            raise LiveError("the engine's live-option socket did not answer within 2 s")
        cap = LiveOption(64, 64, 1, 64, Applies.DRAINS, note="none is admitted meanwhile")
        return LiveState("x", "1", None, {"max_num_seqs": cap}, running=8)

    async def set(self, changes: object, **_: object) -> tuple[object, ...]:
        raise AssertionError("nothing was to be sent")

    async def close(self) -> None:
        pass


def session(live: Noted) -> EngineSession:
    async def fetch(url: str) -> str:
        raise AssertionError(url)

    spec = LaunchSpec("sim", "one", "m", "127.0.0.1", 1, args=("--max-num-seqs", "64"))
    record = EngineRecord(spec, (), (), 1, 1, "boot", "http://127.0.0.1:9", "/no/log", None, 0.0)
    endpoint = Endpoint("one", adapter.ADAPTER, record.url, record=record)
    return EngineSession(endpoint, fetch, live=live)  # type: ignore[arg-type]


async def test_a_note_is_shown_with_its_option_and_with_a_refusal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = session(Noted())
    options, why_not = await there.options()
    cap = next(option for option in options if option.name == "max_num_seqs")
    assert why_not == ""
    assert option_entry(cap)["note"] == "none is admitted meanwhile"
    assert option_entry(next(o for o in options if o.name == "max_model_len"))["note"] is None
    (change,) = await there.change({"max_num_seqs": 128})
    assert change.outcome is Outcome.REFUSED
    assert change_entry(change)["note"] == "none is admitted meanwhile"
    print_change(change, as_json=False)
    assert "note: none is admitted meanwhile" in capsys.readouterr().err
    await there.close()


async def test_a_silent_engine_is_restarted_for_a_live_option_only_when_that_is_asked() -> None:
    live = Noted()
    live.silent = True
    there = session(live)
    (change,) = await there.change({"max_num_seqs": 16})
    assert change.outcome is Outcome.REFUSED
    assert change.reason == (
        "it cannot be changed now: the engine's live-option socket did not answer within 2 s"
    )
    (change,) = await there.change({"max_num_seqs": 16}, trouble="one is frozen: SIGSTOP")
    assert change.reason == "it cannot be changed now: one is frozen: SIGSTOP"
    options, _ = await there.options()
    # With --restart a restart is what helps.
    assert propose(options, {"max_num_seqs": 16}).restart == {"max_num_seqs": 16}
    await there.close()


def test_why_an_engine_is_silent_by_its_processes() -> None:
    spec = LaunchSpec("vllm", "v", "m", "127.0.0.1", 1)
    record = EngineRecord(spec, (), (), 1, 1, "boot", "", "/no/log", None, 0.0)

    def why(state: State, phase: str) -> str:
        return why_silent(EngineStatus(record, state, None, phase))

    assert why(State.READY, "") == "" and why_silent(None) == ""
    held = "its process VLLM::EngineCore_DP1 (pid 7) is stopped by a signal (SIGSTOP)"
    assert why(State.UNRESPONSIVE, held) == f"v is frozen: {held}"
    silent = "/health does not answer within 2 s"
    assert why(State.UNRESPONSIVE, silent) == f"v does not answer: {silent}"
