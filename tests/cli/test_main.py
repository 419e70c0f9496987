"""The command line, end to end, on a simulated engine that runs as a real process."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmtop.wording.format import duration
from tests.engine_page import running
from tests.llmtop_process import Home, command, free_port
from tests.tiers import first

pytestmark = pytest.mark.process

QUICK = ("--no-calibrate",)  # a calibration takes two seconds of both cores


def sim(name: str, *flags: str) -> tuple[str, ...]:
    """Start a simulated engine on a port of its own."""
    head = ("run", "sim", "--detach", "--json", "--name", name, "--port", str(free_port()))
    return (*head, "--", *flags)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def engine(home: Home) -> str:
    started = home.run(*sim("one", "--startup-s", "0", "--max-num-seqs", "64"))
    assert started.code == 0, started.err
    return str(started.json["name"])


def test_help_names_every_command_and_exit_code(home: Home) -> None:
    done = home.run("--help")
    assert done.code == 0
    for word in (
        "demo",
        "run",
        "attach",
        "ps",
        "once",
        "options",
        "set",
        "load",
        "logs",
        "stop",
        "doctor",
    ):
        assert f"  {word} " in done.out
    assert "Exit codes" in done.out


EARLY = """
import sys
class Ctrl:
    def find_spec(self, name, *rest):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Ctrl())
from llmtop.__main__ import main
main()
"""


def test_ctrl_c_while_it_is_still_being_imported_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "llmtop: interrupted\n")


@pytest.mark.parametrize(
    ("line", "words"),
    first(
        2,
        [
            (
                ("--readonly", "attach", ":1"),
                ("must come after attach", "llmtop attach --readonly"),
            ),
            (("--no-mouse", "demo"), ("--no-mouse must come after demo", "llmtop demo --no-mouse")),
            (
                ("--readonly", "set", "one", "max_num_seqs=9"),
                ("--readonly is not an option of set",),
            ),
            (("--config", "x.toml", "ps"), ("--config is not an option of ps",)),
            (
                ("--yes", "restart", "one"),
                ("--yes must come after restart", "llmtop restart --yes"),
            ),
        ],
        2,
    ),
)
def test_a_flag_that_the_command_would_not_hear_of_is_refused(
    home: Home, engine: str, line: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = home.run(*line)
    assert done.code == 2 and done.out == ""
    assert all(word in done.err for word in words)
    (option,) = (o for o in home.run("options", engine, "--json").json["options"][:1])
    assert option["value"] == 64


def test_the_file_may_be_named_before_a_command_that_reads_it(home: Home) -> None:
    done = home.run("--config", "/nonexistent.toml", "up")
    assert done.code == 2 and "/nonexistent.toml cannot be read" in done.err


def test_a_fault_of_the_file_is_printed_whole_and_its_secret_is_not(
    home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "llmtop.toml"
    path.write_text("[engines.a]\nengine = 'sim'\nenv = { HF_TOKEN = 'hf_hush' }\n")
    done = home.run("up", "--config", str(path))
    assert done.code == 2
    assert ":3: engines.a.env.HF_TOKEN: a secret does not belong in this file" in done.err
    assert "hf_hush" not in done.err


def test_ps_lists_the_engine_with_every_documented_field(home: Home, engine: str) -> None:
    (found,) = home.run("ps", "--json").json["engines"]
    assert found["name"] == engine
    assert found["engine"] == "sim"
    assert found["state"] == "ready"
    assert found["simulated"] is True
    assert found["version"]
    assert found["url"] == f"http://127.0.0.1:{found['port']}"
    assert Path(found["log_path"]).is_file()
    assert abs(found["started_at"] - time.time()) < 600
    os.kill(found["pid"], 0)
    table = home.run("ps").out
    assert engine in table
    assert "simulated" in table


def test_ps_tells_the_age_of_an_engine_whatever_became_of_the_wall_clock(
    home: Home, engine: str
) -> None:
    log = Path(home.run("ps", "--json").json["engines"][0]["log_path"])
    path = log.with_name("record.json")
    whole = path.read_bytes()
    told = json.loads(whole)
    told["record"]["started_at"] -= 86_400.0  # as if the clock had been put forward since
    path.write_text(json.dumps(told))
    try:
        row = next(line for line in home.run("ps").out.splitlines() if line.startswith(engine))
    finally:
        path.write_bytes(whole)
    assert re.search(r" (\d+m)?\d+s( |$)", row)


def test_options_say_how_each_applies(home: Home, engine: str) -> None:
    listed = home.run("options", engine, "--json").json["options"]
    by_name = {option["name"]: option for option in listed}
    assert by_name["max_num_seqs"]["launch"] == 64
    assert by_name["max_num_seqs"]["applies"] == "live, up to the launch value"
    assert by_name["gpu_memory_utilization"]["applies"] == "restart"
    # Speculation was not armed at launch, so it is not offered as live.
    assert by_name["num_speculative_tokens"]["applies"] == "restart"


def test_set_under_load_is_acknowledged_and_seen(home: Home, engine: str) -> None:
    url = home.url(engine)
    load = subprocess.Popen(
        command(
            "load", engine, "-c", "32", "-d", "600", "--output-tokens", "400", *QUICK, "--json"
        ),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with load:
        wait_for(lambda: running(url) == 32, "32 running requests")
        done = home.run("set", engine, "max_num_seqs=5", "--evict", "--json")
        (change,) = done.json["changes"]
        assert done.code == 0
        assert change["option"] == "max_num_seqs"
        assert (change["from"], change["to"]) == (64, 5)
        assert change["outcome"] == "applied"
        assert change["ack_ms"] > 0
        # All above the cap; some streams may just have been between two requests.
        assert 10 <= change["evicted"] <= 27
        sample = home.run("once", engine, "--window", "0.3", "--json").json
        assert sample["running"] <= 5
        assert sample["waiting"] >= 10
        assert home.run("set", engine, "max_num_seqs=64", "--json").code == 0
        load.send_signal(signal.SIGINT)  # however long the steps above took, it ran through them
        out, _ = load.communicate(timeout=60)
    assert load.returncode == 130
    told = json.loads(out)["requests"]
    # What was in flight was let finish: a cut would leave the long ones out of the latencies.
    assert (told["failed"], told["cut"]) == (0, 0)
    assert told["ok"] >= 32


def test_a_second_ctrl_c_cuts_what_is_in_flight(home: Home, engine: str) -> None:
    url = home.url(engine)
    with subprocess.Popen(
        command(
            "load", engine, "-c", "4", "-d", "600", "--output-tokens", "4000", *QUICK, "--json"
        ),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as load:
        assert load.stderr is not None
        wait_for(lambda: running(url) == 4, "4 running requests")
        load.send_signal(signal.SIGINT)
        while "Ctrl+C again stops" not in (line := load.stderr.readline()):
            assert line
        load.send_signal(signal.SIGINT)
        out, err = load.communicate(timeout=60)
    told = json.loads(out)["requests"]
    assert (told["ok"], told["failed"], told["cut"]) == (0, 0, 4)
    assert load.returncode == 130 and "Traceback" not in err


def wait_for(condition: object, what: str, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(0.05)


def test_load_reports_every_documented_field(home: Home, engine: str) -> None:
    done = home.run(
        "load", engine, "--concurrency", "4", "--duration", "2", "--output-tokens", "20", "--json"
    )
    assert done.code == 0, done.err
    report = done.json
    assert report["requests"]["ok"] > 0
    assert report["requests"]["failed"] == 0
    assert report["output_tokens"] == 20 * report["requests"]["ok"]
    for latency in ("ttft_s", "tpot_s", "e2e_s"):
        # An answer that came at one moment, on a crowded machine, has no time per token.
        n, ok = report[latency]["n"], report["requests"]["ok"]
        assert n == ok or (latency == "tpot_s" and 0 < n < ok)
        assert 0 < report[latency]["p50"] <= report[latency]["p95"] <= report[latency]["p99"]
    assert report["itl_s"]["n"] == 19 * report["requests"]["ok"]
    assert report["client"]["clock"] in ("kernel", "user space")
    assert report["client"]["verdict"]


def test_a_trace_of_conversations_is_replayed_and_saved(
    home: Home, engine: str, tmp_path: Path
) -> None:
    (tmp_path / "day.csv").write_text("time,prompt_tokens\n0,64\n0.5,64\n1,64\n")
    (tmp_path / "llmtop.toml").write_text(
        '[shapes]\nday = "trace day.csv speed 2 for 4s"\n'
        '[prompts.talk]\nturns = 2\noutput_tokens = "lognormal 8 cv 0.5 max 20"\n'
    )
    saved = tmp_path / "run.jsonl"
    done = home.run(
        "load", engine, "--config", str(tmp_path / "llmtop.toml"), "--shape", "@day",
        "--prompts", "talk", "--save", str(saved), *QUICK, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["loop"] == "open"
    assert done.json["arrival"] is None  # recorded, not drawn
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    assert sorted(row["turn"] for row in rows) == [1, 1, 1, 2, 2, 2]
    assert done.json["requests"]["ok"] == 6
    first = sorted(row["intended_s"] for row in rows if row["turn"] == 1)
    assert [at - first[0] for at in first] == pytest.approx([0, 0.25, 0.5])
    # The second turn begins as the first one did, and the engine's prefix cache knows that.
    assert all(row["cached_tokens"] > 0 for row in rows if row["turn"] == 2)
    assert done.json["cached_tokens"] == sum(row["cached_tokens"] for row in rows)


def test_load_and_once_by_url(home: Home, engine: str) -> None:
    url = home.run("ps", "--json").json["engines"][0]["url"]
    loaded = home.run("load", url, "-c", "2", "-d", "1", "--output-tokens", "5", *QUICK, "--json")
    assert loaded.json["requests"]["ok"] > 0
    sample = home.run("once", url, "--window", "0.3", "--json").json
    assert sample["running"] == 0
    assert sample["simulated"] is True
    assert sample["kv_tokens_total"] > 0
    assert sample["gpus"] == []


def test_an_option_out_of_range_is_refused_with_the_range(home: Home, engine: str) -> None:
    done = home.run("set", engine, "max_num_seqs=100000", "--json")
    assert done.code == 1
    (change,) = done.json["changes"]
    assert change["outcome"] == "refused"
    assert "1 to 64" in change["reason"]
    assert "100000" in done.err


def test_logs_are_printed_without_escape_sequences(home: Home, engine: str) -> None:
    log = Path(home.run("ps", "--json").json["engines"][0]["log_path"])
    with log.open("ab") as out:
        out.write(b"\x1b[31mred\x1b[0m \x07bell \xff\xfe\n")
    done = home.run("logs", engine, "-n", "50")
    assert done.code == 0
    assert "red" in done.out
    assert "\x1b" not in done.out
    assert "\x07" not in done.out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    first(20, [
        (("run", "vlm", "model"), 2, "vllm"),
        (("set", "one", "max_num_seq=4"), 2, "max_num_seqs"),
        (("set", "one", "max_num_seqs=many"), 2, "whole number"),
        (("stop", "nobody"), 2, "nobody"),
        (("logs", "nobody"), 2, "nobody"),
        (("once", "nobody"), 2, "nobody"),
        (("load", "one", "--shape", "wobble 3"), 2, "wobble"),
        (("load", "one", "-c", "1", "-r", "1"), 2, "not both"),
        (("load", "one", "--dataset", "/no/such.json"), 2, "/no/such.json cannot be read"),
        (("load", "one", "--json-schema", "/no/such.json"), 2, "/no/such.json cannot be read"),
        (("load", "one", "--save", "run.txt"), 2, "neither .csv nor .jsonl"),
        (("load", "http://192.0.2.1:80", "-r", "9", "--burstiness", "2"), 2, "another machine"),
        (("saturate", "one", "--turns", "2", "--think", "1s"), 2, "think time reduces"),
        (("restart", "one", "--rolling", "--drain", "nan"), 2, "nan"),
        (("frobnicate",), 2, "frobnicate"),
        (("demo",), 2, "terminal"),
        ((), 2, "terminal"),
        (("attach", "not a url"), 2, "terminal"),
        (("attach", ":1", "--theme", "nosuch"), 2, "no theme is called 'nosuch'"),
        (("once", "http://user:pw@127.0.0.1:1"), 2, "user name"),
        (("run", "sim", "--detach", "--", "--misbehave", "fail-start"), 1, "memory"),
        (("run", "sim", "--detach", "--", "--no-such-flag"), 1, "--no-such-flag"),
        (("run", "sim", "no-such-model", "--detach"), 1, "no-such-model"),
        (("run", "sim", "--name", "../x", "--detach"), 2, "../x"),
        (("run", "vllm"), 2, "model"),
        (("run", "vllm", "/no/such/model", "--bin", "/no/such/vllm", "--detach"), 2, "/no/such"),
        (("set", "one", "max_num_seqs"), 2, "max_num_seqs=64"),
        (("set", "nobody", "max_num_seqs=4"), 2, "nobody"),
        (("load", "one", "--shape", "hold 3"), 2, "no end"),
        (("load", "one", "-c", "1", "--prompt-tokens", "x"), 2, "448..576"),
        (("load", "one", "-c", "0"), 2, "0"),
        (("load", "one", "--turns", "0"), 2, "--turns"),
        (("load", "one", "--trace", "/no/such.csv"), 2, "/no/such.csv cannot be read"),
        (("load", "one", "--trace", "x", "-c", "3"), 2, "a trace defines"),
        (("load", "one", "--arrival", "gamma"), 2, "no arrivals"),
        (("load", "one", "-r", "1", "--burstiness", "nan"), 2, "nan"),
        (("load", "one", "--timeout", "nan"), 2, "nan"),
        (("load", "one", "--timeout", "-1"), 2, "-1"),
        (("once", "one", "--window", "nan"), 2, "nan"),
        (("stop", "one", "--grace", "nan"), 2, "nan"),
        (("set", "one", "max_num_seqs=9", "--restart", "--drain", "-1"), 2, "-1"),
        (("logs", "one", "-n", "9" * 30), 2, "-n"),
        (("set", "one", "max_num_seqs=3", "max_num_seqs=4"), 2, "twice"),
        (("run", "sim", "--detach", "--name", "n" * 10000), 2, "n"),
    ], 3),
)  # fmt: skip
def test_bad_input_costs_one_clear_line(
    home: Home, engine: str, args: tuple[str, ...], code: int, words: str
) -> None:
    done = home.run(*args)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err + done.out
    assert done.out == ""
    said = [line for line in done.err.splitlines() if line.startswith("llmtop:")]
    assert len(said) == 1, done.err


def piped(home: Home, shell: str, *args: str) -> tuple[int, str]:
    """Run ``llmtop ARGS`` with its streams redirected by a shell: its exit code and stderr."""
    words = ["bash", "-c", f'"$@" {shell}', "bash", *command(*args)]
    done = subprocess.run(
        words, env=home.environ, cwd=home.folder, stderr=subprocess.PIPE, text=True, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.more
@pytest.mark.parametrize(
    ("shell", "args", "code", "said"),
    [
        (">&-", ("ps",), 1, "llmtop: standard output is closed"),
        (">&-", ("ps", "--json"), 1, "llmtop: standard output is closed"),
        (">/dev/full", ("ps",), 1, "llmtop: standard output cannot be written: No space"),
        (">/dev/full", ("schema",), 1, "llmtop: standard output cannot be written: No space"),
        (">/dev/full", ("--help",), 1, "llmtop: standard output cannot be written: No space"),
        ("1</dev/null", ("schema",), 1, "llmtop: standard output cannot be written: Bad file"),
        ("2>&- >/dev/null", ("ps",), 0, ""),
        ("<&- >/dev/null", ("ps",), 0, ""),
        ("| head -0; exit ${PIPESTATUS[0]}", ("schema",), 1, ""),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    home: Home, engine: str, shell: str, args: tuple[str, ...], code: int, said: str
) -> None:
    found, err = piped(home, shell, *args)
    assert found == code, err
    assert err.startswith(said)
    assert "internal error" not in err
    assert len(err.splitlines()) <= (2 if said else 0)


def test_a_failed_start_leaves_nothing_running(home: Home) -> None:
    done = home.run(*sim("broken", "--misbehave", "fail-start"))
    assert done.code == 1
    assert done.out == ""
    found = [e for e in home.run("ps", "--json").json["engines"] if e["name"] == "broken"]
    assert [engine["state"] for engine in found] == ["failed"]
    assert found[0]["detail"]
    assert "left no memory for the KV cache" in found[0]["cause"] and found[0]["advice"]
    # The lines of the log that show it, on stderr and in JSON.
    (line,) = [line for line in found[0]["log_excerpt"] if "No available memory" in line]
    assert f"| {line}" in done.err
    with pytest.raises(ProcessLookupError):
        os.kill(found[0]["pid"], 0)


def test_a_key_on_an_engines_command_line_is_shown_nowhere(home: Home) -> None:
    done = home.run(*sim("keyed", "--api-key", "hunter2hunter2"))
    assert done.code == 1
    said = done.err + home.run("ps").out + home.run("ps", "--json").out
    said += home.run("logs", "keyed").out
    folder = home.folder / "state" / "llmtop" / "engines" / "keyed"
    assert "hunter2" not in said + (folder / "record.json").read_text()
    assert "[hidden]" in said


@pytest.mark.parametrize("field", ["pid", "started_at", "log_path", "deep", "pipe"])
def test_a_damaged_record_is_named_and_harms_no_other(home: Home, engine: str, field: str) -> None:
    folder = home.folder / "state" / "llmtop" / "engines" / "bad"
    folder.mkdir(mode=0o700)
    whole = json.loads((folder.parent / engine / "record.json").read_text())
    whole["record"]["spec"]["name"] = "bad"
    if field == "pipe":
        os.mkfifo(folder / "record.json")
    else:
        worse = {"pid": 2**70, "started_at": 1e308, "log_path": "/dev/zero"}
        whole["record"][field] = worse.get(field)
        text = '{"schema":1,"record":' + "[" * 100_000 if field == "deep" else json.dumps(whole)
        (folder / "record.json").write_text(text)
    try:
        done = home.run("ps", "--json", timeout=30)
        assert done.code == 0
        assert "bad" in done.err
        assert engine in [found["name"] for found in done.json["engines"]]
        assert "bad" not in [found["name"] for found in done.json["engines"]]
    finally:
        shutil.rmtree(folder)


def test_a_taken_port_is_named_with_its_holder(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = home.run("run", "sim", "--detach", "--json", "--name", "two", "--port", port)
    assert done.code == 1
    assert port in done.err
    assert str(os.getpid()) in done.err


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html>a router's login page</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_url_that_is_no_engine_is_said_to_be_none(home: Home) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for verb in (("once", url), ("load", url, "-d", "1")):
            done = home.run(*verb)
            assert done.code == 1
            assert "engine" in done.err or "OpenAI" in done.err
        server.shutdown()


def test_a_port_where_nobody_listens_is_said_so(home: Home) -> None:
    done = home.run("once", f":{free_port()}")
    assert done.code == 1
    assert "nothing" in done.err.lower() or "refused" in done.err.lower()


@pytest.mark.parametrize("write", first(1, [str, ":{}".format, "localhost:{}".format]))
def test_a_bare_port_is_an_address_for_every_command_that_takes_a_url(
    home: Home, engine: str, write: Callable[[int], str]
) -> None:
    (port,) = (e["port"] for e in home.run("ps", "--json").json["engines"] if e["name"] == engine)
    where = write(port)
    assert home.run("once", where, "--window", "0.2").code == 0
    assert home.run("options", where).code == 0
    assert home.run("set", where, "max_num_seqs=64").code == 0
    assert home.run("load", where, "-c", "1", "-d", "1", "--no-calibrate").code == 0
    refused = home.run("restart", where)
    assert refused.code == 2 and "only an engine that llmtop started" in refused.err


@pytest.mark.more
def test_an_engine_that_was_named_by_a_number_is_found_by_it(home: Home) -> None:
    assert home.run(*sim("8000", "--startup-s", "0")).code == 0
    assert home.run("once", "8000", "--window", "0.2", "--json").json["name"] == "8000"
    home.run("stop", "8000", "--grace", "2")


def test_an_engine_that_does_not_serve_is_said_to_be_stopped_failed_or_starting(
    home: Home,
) -> None:
    started = home.run(*sim("rest", "--startup-s", "0"))
    home.run("stop", "rest", "--grace", "2")
    asked = (("once", "rest"), ("set", "rest", "max_num_seqs=4"), ("load", "rest", "-d", "1"))
    for verb in asked:
        done = home.run(*verb)
        assert done.code == 1 and done.out == ""
        first, second = done.err.splitlines()
        assert first.startswith("llmtop: rest is stopped: it was asked to end ")
        assert second.strip() == "start it again: llmtop restart rest"
    options = home.run("options", "rest")
    assert options.code == 0 and "gpu_memory_utilization" in options.out
    assert "rest is stopped: it was asked to end" in options.err and "socket" not in options.err

    assert home.run("restart", "rest", "--yes").code == 0
    (pid,) = (e["pid"] for e in home.run("ps", "--json").json["engines"] if e["name"] == "rest")
    assert pid != started.json["pid"]
    os.kill(pid, signal.SIGKILL)
    died = home.run("once", "rest").err
    assert "rest is lost" in died and "llmtop logs rest" in died

    env = home.environ
    slow = command(*sim("slow", "--startup-s", "600"))
    with subprocess.Popen(slow, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None and b"slow" in run.stderr.readline()
        early = home.run("once", "slow")
        assert early.code == 1 and "slow is still starting: " in early.err
        home.run("stop", "slow", "--grace", "2")


def test_stop_ends_the_process_and_keeps_the_log(home: Home) -> None:
    started = home.run(*sim("three", "--startup-s", "0"))
    pid, log = started.json["pid"], Path(started.json["log_path"])
    assert home.run("stop", "three").code == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    states = {e["name"]: e["state"] for e in home.run("ps", "--json").json["engines"]}
    assert states["three"] == "stopped"
    assert "simulated" in log.read_text()
    again = home.run(*sim("three", "--startup-s", "0"))
    assert again.code == 0
    assert again.json["pid"] != pid


@pytest.mark.more
def test_a_second_start_is_measured_against_the_first(home: Home) -> None:
    flags = sim("paced", "--startup-s", "4")
    first = home.run(*flags)
    assert first.code == 0, first.err
    assert re.search(r"^paced: (?:weights|compile|KV cache|CUDA graphs|starting)", first.err, re.M)
    assert "last time" not in first.err
    home.run("stop", "paced", "--grace", "2")
    saved = json.loads((home.folder / "state" / "llmtop" / "startups.json").read_text())
    (took,) = (took for key, took in saved["startups"].items() if "--startup-s 4" in key)
    assert took >= 4
    # Who looks late, on a crowded machine, knows when none of the phases began, else when all did.
    for phases in saved["phases"].values():
        assert {"weights", "KV cache", "CUDA graphs"} <= set(phases)
    second = home.run(*flags)
    assert f" of about {duration(took)} last time" in second.err
    home.run("stop", "paced", "--grace", "2")
