"""Restarts from the command line: the real program, on a simulated engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llmtop_process import Done, Home, free_port
from tests.tiers import first

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    started = home.run(
        "run", "sim", "--detach", "--json", "--name", "one", "--port", str(free_port()),
        "--", "--startup-s", "0.2", "--max-num-seqs", "64",
    )  # fmt: skip
    assert started.code == 0, started.err
    yield home
    home.stop_all()


def option(home: Home, name: str) -> object:
    listed = home.run("options", "one", "--json").json["options"]
    return next(one["value"] for one in listed if one["name"] == name)


def engine(home: Home) -> dict[str, object]:
    (found,) = home.run("ps", "--json").json["engines"]
    return dict(found)


def single(done: Done) -> str:
    said = [line for line in done.err.splitlines() if line.startswith("llmtop:")]
    assert len(said) == 1 and "Traceback" not in done.err, done.err
    return said[0]


def test_without_leave_to_restart_it_is_refused_with_the_way(home: Home) -> None:
    done = home.run("set", "one", "max_model_len=4096")
    assert done.code == 1
    assert "--restart" in single(done)


def test_it_says_the_cost_and_is_not_done_unasked(home: Home) -> None:
    pid = engine(home)["pid"]
    done = home.run("set", "one", "max_model_len=4096", "--restart")
    assert done.code == 2
    assert "restart, about " in done.err and "no request is in flight" in done.err
    assert "--yes" in done.err
    assert engine(home)["pid"] == pid


def test_set_with_restart_and_its_document(home: Home) -> None:
    before, length = engine(home), option(home, "max_model_len")
    done = home.run("set", "one", "max_model_len=4096", "max_num_seqs=32", "--restart", "--json")
    assert done.code == 0, done.err
    first, second = done.json["changes"]
    assert (first["option"], first["from"], first["to"]) == ("max_model_len", length, 4096)
    assert first["outcome"] == second["outcome"] == "applied"
    told = done.json["restart"]
    assert told["outcome"] == "restarted" and told["reason"] is None
    assert told["expected_s"] > 0 and told["in_flight"] == 0 and told["rolling"] is False
    assert 0 < told["down_s"] <= told["took_s"]
    now = engine(home)
    assert told["pid"] == now["pid"] != before["pid"]
    assert told["url"] == told["url_before"] == now["url"] == before["url"]
    assert now["state"] == "ready" and now["version"]
    assert option(home, "max_model_len") == 4096
    assert option(home, "max_num_seqs") == 32


@pytest.mark.more
def test_what_applies_live_is_not_restarted_for(home: Home) -> None:
    pid = engine(home)["pid"]
    done = home.run("set", "one", "max_num_seqs=16", "--restart", "--json")
    assert done.code == 0 and done.json["restart"] is None
    assert done.json["changes"][0]["ack_ms"] > 0
    assert engine(home)["pid"] == pid
    # Above what it was launched with only a restart helps, and here it may.
    done = home.run("set", "one", "max_num_seqs=128", "--restart", "--yes")
    assert done.code == 0, done.err
    assert option(home, "max_num_seqs") == 128 and engine(home)["pid"] != pid


def test_what_does_not_start_is_rolled_back(home: Home) -> None:
    length = option(home, "max_model_len")
    done = home.run("restart", "one", "max_model_len=3072", "--json", "--", "--no-such-flag")
    assert done.code == 1
    told = done.json["restart"]
    assert told["outcome"] == "rolled back"
    assert "--no-such-flag" in told["reason"] and told["advice"]
    assert done.json["changes"][0]["outcome"] == "refused"
    assert "rolled back, because" in done.json["changes"][0]["reason"]
    assert "rolled back, because" in single(done) and "--no-such-flag" in single(done)
    assert engine(home)["state"] == "ready"
    assert option(home, "max_model_len") == length != 3072


@pytest.mark.more
def test_restart_with_free_flags_replaces_them(home: Home) -> None:
    for seed in ("7", "8"):
        done = home.run("restart", "one", "--yes", "--", "--seed", seed)
        assert done.code == 0, done.err
    line = Path(f"/proc/{engine(home)['pid']}/cmdline").read_text().split("\0")
    assert line.count("--seed") == 1 and line[line.index("--seed") + 1] == "8"
    done = home.run("set", "one", "--restart", "--json", "--", "--seed=9")
    assert done.code == 0 and done.json["restart"]["outcome"] == "restarted"
    assert "--seed=9" in Path(f"/proc/{done.json['restart']['pid']}/cmdline").read_text()


def arguments(home: Home) -> list[str]:
    return Path(f"/proc/{engine(home)['pid']}/cmdline").read_text().split("\0")


@pytest.mark.more
def test_set_with_restart_takes_a_flag_and_its_value_in_two_words(home: Home) -> None:
    words = ("set", "one", "max_model_len=2048", "--restart", "--yes", "--", "--seed", "10")
    done = home.run(*words)
    assert done.code == 0, done.err
    line = arguments(home)
    assert line.count("--seed") == 1 and line[line.index("--seed") + 1] == "10"
    assert option(home, "max_model_len") == 2048


@pytest.mark.more
def test_without_drops_a_flag_and_its_value(home: Home) -> None:
    done = home.run("restart", "one", "max_model_len=2048", "--yes", "--", "--seed", "10")
    assert done.code == 0 and "--seed" in arguments(home)
    done = home.run("restart", "one", "--without", "--seed", "--yes")
    assert done.code == 0, done.err
    line = arguments(home)
    assert "--seed" not in line and "10" not in line
    # Named as an option, in one go with another flag, and by way of set.
    done = home.run(
        *("set", "one", "--restart", "--json", "--without", "max_model_len"),
        *("--", "--max-num-batched-tokens", "4096"),
    )
    assert done.code == 0, done.err
    assert "--max-model-len" not in arguments(home)
    assert option(home, "max_model_len") == 8192
    assert option(home, "max_num_batched_tokens") == 4096


def test_rolling_says_where_it_is_now(home: Home) -> None:
    before = engine(home)
    done = home.run("restart", "one", "num_speculative_tokens=4", "--rolling", "--json")
    assert done.code == 0, done.err
    told = done.json["restart"]
    assert told["rolling"] is True and told["down_s"] == 0
    assert told["url_before"] == before["url"] != told["url"]
    assert told["url"] in done.err and str(before["url"]) in done.err
    now = engine(home)
    assert (now["name"], now["url"], now["state"]) == ("one", told["url"], "ready")
    assert now["log_path"] == before["log_path"]
    assert "=== llmtop" in Path(f"{before['log_path']}.1").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(before["pid"])), 0)
    assert option(home, "speculative_method") == "ngram"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    first(
        4,
        [
            (("restart", "nobody"), 2, "nobody"),
            (("restart", ":8000", "--yes"), 2, "that llmtop started"),
            (("restart", "one", "max_len=1", "--yes"), 2, "max_model_len"),
            (("restart", "one", "max_model_len", "--yes"), 2, "max_num_seqs=64"),
            (("restart", "one", "max_model_len=0", "--yes"), 1, "out of range"),
            (("restart", "one", "--gpus", "x", "--yes"), 2, "list of GPUs"),
            (("restart", "one", "speculative_method=psychic", "--yes"), 2, "psychic"),
            (("restart", "one", "--yes", "--", "--port", "1"), 2, "--port"),
            (("set", "one", "max_num_seqs=4", "--rolling"), 2, "--restart"),
            (("set", "one", "max_num_seqs=4", "--without", "--seed"), 2, "--restart"),
            (
                ("set", "one", "max_num_seqs=4", "--", "--seed", "1"),
                2,
                "add --restart before the --",
            ),
            (("set", "one", "--restart"), 2, "nothing to change"),
            (
                ("restart", "one", "--without", "--no-such", "--yes"),
                2,
                "not started with --no-such",
            ),
        ],
        3,
    ),
)
def test_bad_input_costs_one_line_and_no_restart(
    home: Home, args: tuple[str, ...], code: int, words: str
) -> None:
    pid = engine(home)["pid"]
    done = home.run(*args)
    assert done.code == code, done.err
    assert words in done.err
    single(done)
    assert done.out == ""
    assert engine(home)["pid"] == pid
