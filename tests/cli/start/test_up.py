"""Engines by name, end to end: up, down, run and load with a llmtop.toml, on real processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.llmtop_process import Home, command, free_port
from tests.terminal import Terminal
from tests.tiers import first

pytestmark = pytest.mark.process

KEY = "key-that-nobody-sees"
TOKEN = "token-that-nobody-sees"

FILE = """\
[engines.one]
engine = "sim"
port = 1
args = ["--startup-s", "0", "--max-num-seqs", "64"]
env = { COLOUR = "green" }
env_from = ["HF_TOKEN"]
api_key_file = "one.key"
prompts = "brief"
gpus = [0]

[engines.two]
engine = "sim"
port = 2
args = ["--startup-s", "0"]
gpus = [0]

[engines.broken]
engine = "sim"
args = ["--misbehave", "fail-start"]

[engines.lacking]
engine = "sim"
env_from = ["NOT_SET_ANYWHERE"]

[shapes]
blip = "hold 2 for 1s"

[prompts.brief]
prompt_tokens = 16
output_tokens = 3

[screen]
theme = "light"
interval = 0.5
readonly = true
"""


def furnished(folder: Path) -> Home:
    text = FILE.replace("port = 1\n", f"port = {free_port()}\n")
    (folder / "llmtop.toml").write_text(text.replace("port = 2\n", f"port = {free_port()}\n"))
    (folder / "one.key").write_text(KEY + "\n")
    return Home.make(folder, {"HF_TOKEN": TOKEN})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = furnished(tmp_path)
    yield home
    # Also those that a test started by another name, or changed the file of.
    names = [path.name for path in (tmp_path / "state" / "llmtop" / "engines").iterdir()]
    (tmp_path / "all.toml").write_text("".join(f'[engines.{n}]\nengine = "sim"\n' for n in names))
    assert home.run("down", "--config", "all.toml", "--grace", "2").code == 0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which the engine two runs, and its file is left as it is."""
    home = furnished(tmp_path_factory.mktemp("home"))
    assert home.run("up", "two").code == 0
    yield home
    assert home.run("down", "--grace", "2").code == 0


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which nothing may ever be started."""
    home = furnished(tmp_path_factory.mktemp("home"))
    (home.folder / "empty.toml").write_text("")
    (home.folder / "bad.toml").write_text('[engines.a]\nengine = "sim"\ngpus = 1\n')
    yield home
    left = home.run("ps", "--json").json["engines"]
    home.stop_all()
    assert left == []


def by_name(document: Any) -> dict[str, Any]:
    return {engine["name"]: engine for engine in document["engines"]}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_up_starts_all_that_it_can_and_down_stops_them(home: Home) -> None:
    up = home.run("up", "--json")
    assert up.code == 1
    found = by_name(up.json)
    assert list(found) == ["one", "two", "broken", "lacking"]
    assert {name: engine["outcome"] for name, engine in found.items()} == {
        "one": "started", "two": "started", "broken": "failed", "lacking": "failed",
    }  # fmt: skip
    assert [found[name]["engine"]["state"] for name in ("one", "two", "broken")] == [
        "ready", "ready", "failed",
    ]  # fmt: skip
    assert found["one"]["engine"]["version"]
    file = (home.folder / "llmtop.toml").read_text()
    assert f"port = {found['one']['engine']['port']}\n" in file
    assert found["lacking"]["engine"] is None
    assert "llmtop.toml:23: engines.lacking.env_from[0]: NOT_SET_ANYWHERE" in up.err
    assert found["lacking"]["hint"] == "export NOT_SET_ANYWHERE and try again"
    assert [line.split(":")[1].strip() for line in up.err.splitlines() if "llmtop: " in line] == [
        "broken", "lacking",
    ]  # fmt: skip
    (warning,) = up.json["warnings"]
    assert warning.startswith("one and two share GPU 0")

    pids = [found[name]["engine"]["pid"] for name in ("one", "two")]
    again = home.run("up", "two", "one", "--json")
    assert again.code == 0, again.err
    left = by_name(again.json)
    assert list(left) == ["two", "one"]
    assert {engine["outcome"] for engine in left.values()} == {"already running"}
    assert [left[name]["engine"]["pid"] for name in ("one", "two")] == pids

    other = home.run("run", "sim", "--name", "other", "--detach", "--", "--startup-s", "0")
    assert other.code == 0
    down = home.run("down", "--json", "--grace", "2")
    assert down.code == 0, down.err
    assert {name: engine["outcome"] for name, engine in by_name(down.json).items()} == {
        "one": "stopped", "two": "stopped", "broken": "not running", "lacking": "not running",
    }  # fmt: skip
    assert not any(map(alive, pids))
    states = {name: one["state"] for name, one in by_name(home.run("ps", "--json").json).items()}
    assert states["other"] == "ready"


def test_variables_and_keys_reach_the_engine_and_no_record(home: Home) -> None:
    up = home.run("up", "one", "--json")
    assert up.code == 0, up.err
    (engine,) = up.json["engines"]
    environ = Path(f"/proc/{engine['engine']['pid']}/environ").read_bytes().decode().split("\0")
    assert "COLOUR=green" in environ
    assert f"HF_TOKEN={TOKEN}" in environ
    assert "CUDA_VISIBLE_DEVICES=0" in environ
    record = Path(engine["engine"]["log_path"]).with_name("record.json").read_text()
    assert '"COLOUR"' in record
    assert '"HF_TOKEN"' in record
    written = [path for path in home.folder.rglob("*") if path.is_file() and path.name != "one.key"]
    assert len(written) > 3
    for path in written:
        text = path.read_bytes().decode(errors="replace")
        assert KEY not in text, path
        assert TOKEN not in text, path
        assert path.name == "llmtop.toml" or "green" not in text, path
    assert KEY not in up.out + up.err

    # The engine asks for its key, and llmtop sends it where it goes by the engine's name.
    url = engine["engine"]["url"]
    assert "key" in home.run("load", url, "-d", "1").err
    loaded = home.run("load", "one", "--shape", "@blip", "--no-calibrate", "--json")
    assert loaded.code == 0, loaded.err
    assert loaded.json["shape"] == "hold 2 for 1s"
    assert loaded.json["output_tokens"] == 3 * loaded.json["requests"]["ok"] > 0
    longer = ("--output-tokens", "5", "--no-calibrate", "--json")
    flagged = home.run("load", "one", "--shape", "@blip", *longer).json
    assert flagged["output_tokens"] == 5 * flagged["requests"]["ok"] > 0


@pytest.mark.more
def test_flags_go_before_the_file(home: Home) -> None:
    port = free_port()
    ran = home.run(
        "run", "two", "--detach", "--json", "--port", str(port), "--name", "mine",
        "--gpus", "3", "--config", "llmtop.toml", "--", "--max-num-seqs", "7",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert (ran.json["name"], ran.json["port"]) == ("mine", port)
    environ = Path(f"/proc/{ran.json['pid']}/environ").read_bytes().decode().split("\0")
    assert "CUDA_VISIBLE_DEVICES=3" in environ
    options = {o["name"]: o for o in home.run("options", "mine", "--json").json["options"]}
    assert options["max_num_seqs"]["launch"] == 7
    assert home.run("up", "two").code == 0
    (two,) = home.run("down", "two", "--json").json["engines"]
    assert two["outcome"] == "stopped"


def test_what_runs_otherwise_than_the_file_says_is_left_and_told(running: Home) -> None:
    text = (running.folder / "llmtop.toml").read_text()
    text = text.replace('["--startup-s", "0"]', '["--startup-s", "0", "--max-num-seqs", "3"]')
    (running.folder / "other.toml").write_text(text)
    again = running.run("up", "two", "--config", "other.toml")
    assert again.code == 0
    assert "the file now differs" in again.err
    assert "otherwise" not in running.run("up", "two").err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    first(
        4,
        [
            (("up", "nobody"), 2, "llmtop.toml does not define an engine 'nobody'"),
            (("down", "nobody"), 2, "there are: one, two, broken, lacking"),
            (("run", "nobody", "--detach"), 2, "llmtop.toml does not define an engine 'nobody'"),
            (("run", "lacking", "--detach"), 2, "llmtop.toml:23: engines.lacking.env_from[0]"),
            (("up", "--config", "none.toml"), 2, "none.toml cannot be read: no such file"),
            (("--config", "none.toml", "up"), 2, "none.toml cannot be read: no such file"),
            (("up", "--config", "empty.toml"), 2, "empty.toml defines no engine"),
            (("up", "--config", "bad.toml"), 2, "bad.toml:3: engines.a.gpus: expected a list"),
            (("load", "one", "--shape", "@nope"), 2, "llmtop.toml does not define a shape 'nope'"),
            (("load", "one", "--prompts", "nope"), 2, "does not define a set of prompts 'nope'"),
        ],
        3,
    ),
)
def test_bad_input_costs_one_clear_line(
    idle: Home, args: tuple[str, ...], code: int, words: str
) -> None:
    done = idle.run(*args)
    assert done.code == code, done.err
    assert words in done.err
    assert done.out == ""
    assert len([line for line in done.err.splitlines() if line.startswith("llmtop:")]) == 1


def test_a_taken_port_fails_its_engine_alone(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        file = home.folder / "llmtop.toml"
        mine = file.read_text().rpartition("port = ")[2].partition("\n")[0]
        file.write_text(file.read_text().replace(f"port = {mine}", f"port = {port}"))
        up = home.run("up", "two", "one")
    assert up.code == 1
    assert f"llmtop: two: port {port} is in use by pid {os.getpid()}" in up.err
    assert up.out == ""
    (one,) = home.run("ps", "--json").json["engines"]
    assert (one["name"], one["state"]) == ("one", "ready")


def test_the_schema_is_printed(idle: Home) -> None:
    assert idle.run("schema").json["$ref"] == "#/$defs/ConfigTable"


def test_an_engine_that_is_only_pointed_at_says_what_cannot_be_had(running: Home) -> None:
    (two,) = running.run("ps", "--json").json["engines"]
    (running.folder / "elsewhere").mkdir()
    stranger = Home(running.folder, {"XDG_STATE_HOME": str(running.folder / "elsewhere")})
    listed = stranger.run("options", two["url"], "--json").json
    assert "did not start it" in listed["note"]
    for option in listed["options"]:
        assert (option["value"], option["launch"]) == (None, None), option["name"]
    refused = stranger.run("set", two["url"], "max_num_seqs=3", "--json")
    assert refused.code == 1
    (change,) = refused.json["changes"]
    assert change["outcome"] == "refused"
    assert "cannot be changed from here" in change["reason"]


@pytest.mark.more
def test_the_screen_obeys_the_file_and_flags_go_before_it(running: Home) -> None:
    file = str(running.folder / "llmtop.toml")
    for flags, readonly in (((), True), (("--no-readonly",), False)):
        with Terminal(command("--config", file, *flags), running.environ) as terminal:
            text = terminal.see("ready")
            assert ("read-only" in text) is readonly
            terminal.type("q")
            terminal.see("leave")
            terminal.type("\r")
            assert terminal.wait() == 0


@pytest.mark.more
def test_up_does_not_wait_longer_than_it_was_told(home: Home) -> None:
    file = home.folder / "llmtop.toml"
    file.write_text(file.read_text().replace('["--startup-s", "0"]', '["--startup-s", "60"]'))
    up = home.run("up", "two", "--ready-timeout", "0.5", "--json")
    assert up.code == 1
    (two,) = up.json["engines"]
    assert "not ready after 0.5 s" in two["reason"]
    assert alive(two["engine"]["pid"])
    assert two["engine"]["state"] == "starting"
