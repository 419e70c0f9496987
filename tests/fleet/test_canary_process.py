"""A good and a bad canary on simulated engines, under load."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from llmtop.history.history_reader import HistoryReader
from tests.llmtop_process import Home, command, free_port
from tests.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.more]
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home.make(tmp_path_factory.mktemp("home"), {"LLMTOP_HISTORY": "on"})
    lines = [
        f'[engines.{name}]\nengine = "sim"\nport = {free_port()}\nargs = ["--startup-s", "0"]'
        for name in NAMES
    ]
    (made.folder / "llmtop.toml").write_text("\n".join(lines))
    done = made.run("up", timeout=200)
    assert done.code == 0, done.err
    with ExitStack() as stack:
        for name in NAMES:
            argv = command("load", name, "--shape", "hold 8 for 500s")
            load = stack.enter_context(
                subprocess.Popen(
                    argv, env=made.environ, cwd=made.folder,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            stack.callback(load.kill)
        yield made
    made.stop_all()


def limit(home: Home, name: str) -> object:
    options = home.run("options", name, "--json").json["options"]
    return next(one["value"] for one in options if one["name"] == "max_num_seqs")


def steps(home: Home, since: float) -> list[str]:
    """The events of a canary that has ended, as the history has them."""

    def found() -> list[str]:
        with HistoryReader(home.folder / "state" / "llmtop" / "history") as reader:
            events = [one for one in reader.events(time.time()) if one.time > since]
        return [one.text for one in events if one.text.startswith("canary: ")]

    until(lambda: any("ended" in text for text in found()), "the end in the history")
    return found()


def words(value: int, watch: str = "30s") -> list[str]:
    return [
        "set", "name=*", f"max_num_seqs={value}", "--canary", "1", "--watch", watch,
        "--slo", "ttft=2s", "--json",
    ]  # fmt: skip


def canary(home: Home, value: int) -> tuple[int, dict[str, object]]:
    done = home.run(*words(value), timeout=200)
    return done.code, done.json


def test_a_good_canary_is_followed_by_the_rest(home: Home) -> None:
    began = time.time()
    code, found = canary(home, 512)
    assert (code, found["verdict"]) == (0, "not worse"), found
    assert found["changed"] == list(NAMES) and found["reverted"] == []
    assert [limit(home, name) for name in NAMES] == [512, 512]
    chosen, changed, watched, verdict, batch, end = steps(home, began)
    assert "max_num_seqs=512 first on one, of 2 engines (name=*), by " in chosen
    assert changed == "canary: one: max_num_seqs 1,024 -> 512"
    assert watched == "canary: watching one beside two for 30 s: ttft=2s"
    assert verdict == f"canary: not worse: {found['reason']}"
    assert batch == "canary: batch 1 of 1 changed: two: max_num_seqs=512"
    assert end == "canary: ended: one, two with max_num_seqs=512"


def test_a_bad_canary_is_put_back(home: Home) -> None:
    began = time.time()
    code, found = canary(home, 1)
    assert code == 1 and found["verdict"] in ("worse", "undecided"), found
    assert found["canaries"] == found["reverted"] == ["one"]
    assert [limit(home, name) for name in NAMES] == [512, 512]
    assert "canary" not in home.run("ps").out  # nothing is on record as left changed
    verdict, back, end = steps(home, began)[-3:]
    assert verdict == f"canary: {found['verdict']}: {found['reason']}"
    assert back == f"canary: one: put back, {found['verdict']}: {found['reason']}"
    assert end == "canary: ended: one with the old values"


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_one_that_is_ended_is_put_back_though_nobody_reads(home: Home, signum: int) -> None:
    began = time.time()
    with subprocess.Popen(
        command(*words(300, "900s")), env=home.environ, cwd=home.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as watched:  # fmt: skip
        assert watched.stdout is not None and watched.stderr is not None
        assert any("watching" in line for line in watched.stderr)
        assert limit(home, "one") == 300
        watched.stdout.close()
        watched.stderr.close()
        watched.send_signal(signum)
        watched.wait(120)
    assert [limit(home, name) for name in NAMES] == [512, 512]
    assert "canary" not in home.run("ps").out
    assert "canary: one: put back, the command was interrupted" in steps(home, began)
