"""``llmtop load`` against servers that misbehave: exit codes, ids, notes, repeats, file limits."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmtop import LlmtopError
from llmtop.cli.load import load_target
from llmtop.loadgen.client.file_limit import SPARE_FILES, most_streams, raise_limit, streams_of
from llmtop.loadgen.experiments.calibration import room
from tests.llmtop_process import Home, command
from tests.quirky_server import serving

pytestmark = pytest.mark.process

FAST = ("--no-calibrate", "--workers", "1", "-c", "2", "-d", "0.5", "--output-tokens", "2")


class Server(ThreadingHTTPServer):
    """Streams two tokens to each request, or refuses it. bodies: of what it was asked."""

    daemon_threads = True

    def __init__(self, owner: str, refuses: Callable[[int], bool]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner, self.refuses = owner, refuses
        self.bodies: list[dict[str, Any]] = []
        self.ids: list[str | None] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        card = {"id": "m", "owned_by": self.server.owner}
        if self.path == "/v1/models":
            self.answer(200, json.dumps({"data": [card]}).encode(), "application/json")
        else:
            self.answer(404, b"{}", "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.ids.append(self.headers["x-request-id"])
            number = len(self.server.bodies)
        if self.server.refuses(number):
            self.answer(503, b'{"error":{"message":"no room"}}', "application/json")
            return
        usage = b'{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":%b}'
        usage %= b'{"cached_tokens":97}'
        events = (
            b'data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[{"text":"b",'
            b'"finish_reason":"length"}],"usage":%b}\n\ndata: [DONE]\n\n' % usage
        )
        self.answer(200, events, "text/event-stream")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def server(
    owner: str = "vllm", refuses: Callable[[int], bool] = lambda number: False
) -> Iterator[tuple[Server, str]]:
    found = Server(owner, refuses)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found, f"http://127.0.0.1:{found.server_address[1]}"
    finally:
        found.shutdown()
        found.server_close()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def test_a_load_of_which_most_failed_is_no_measurement(home: Home) -> None:
    with server(refuses=lambda number: number > 1) as (_, url):
        done = home.run("load", url, *FAST, "--json")
    assert done.code == 1
    found = done.json["requests"]
    assert found["ok"] == 1 and found["failed"] > 1
    assert (
        f"{found['failed']} of {found['failed'] + 1} requests failed: HTTP 503: no room" in done.err
    )


def test_a_file_on_a_full_disk_does_not_lose_the_result(home: Home) -> None:
    page, log = home.folder / "page.html", home.folder / "run.hlog"
    page.symlink_to("/dev/full")
    with server() as (_, url):
        done = home.run("load", url, *FAST, "--save-hlog", str(log), "--report", str(page))
    assert done.code == 1 and f"{page} cannot be written: No space left" in done.err
    assert "requests/s" in done.out and "StartTime" in log.read_text()


def test_each_request_is_saved_with_the_id_that_the_engine_got_and_repeats_are_said(
    home: Home,
) -> None:
    dataset = home.folder / "two.jsonl"
    dataset.write_text('{"prompt":"hello there"}\n{"prompt":"tell me a story"}\n')
    saved = home.folder / "run.jsonl"
    with server("sglang") as (found, url):
        wanted = ("load", url, *FAST, "--dataset", str(dataset))
        first = home.run(*wanted, "--save", str(saved), "--json")
        second = home.run(*wanted, "--natural-end")
    assert first.code == second.code == 0, first.err + second.err
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    told = {row["request_id"] for row in rows}
    assert len(told) == len(rows) and told <= set(found.ids)
    assert all(one.startswith(first.json["request_ids"]) for one in told)
    assert [body["rid"] for body in found.bodies] == found.ids  # SGLang takes it in the body
    repeated = first.json["repeated_prompts"]
    assert repeated["prompts"] == 2 and repeated["requests"] == len(rows)
    assert repeated["times_each"] == len(rows) / 2 and repeated["before_s"] is None
    assert repeated["cached_share"] == pytest.approx(0.97)
    assert "each of 2 prompts was sent" in second.out
    assert "(cached 97% of prompt tokens)" in second.out
    assert "this dataset (two.jsonl) was sent to this engine" in second.out
    # What must not end early is reserved in full by SGLang.
    assert "--natural-end" in first.err and "--natural-end" in first.json["notes"][0]
    assert "retraction" not in second.err
    ignored = [body.get("ignore_eos") for body in found.bodies]
    assert ignored[0] is True and ignored[-1] is None


@pytest.mark.more
def test_a_seed_that_was_sent_before_is_said_and_strict_servers_get_no_rid(home: Home) -> None:
    with server("vllm") as (found, url):
        wanted = ("load", url, *FAST, "--seed", "7", "--json")
        first, second = home.run(*wanted), home.run(*wanted)
        other = home.run("load", url, *FAST, "--seed", "8", "--json")
    before = [done.json["repeated_prompts"]["before_s"] for done in (first, second, other)]
    assert before[0] is None and before[1] >= 0 and before[2] is None
    assert "rid" not in found.bodies[0] and all(found.ids)
    spread = first.json["ttft_s"]
    assert spread["min"] <= spread["p50"] <= spread["max"]
    assert spread["min"] <= spread["mean"] <= spread["max"] and spread["std"] >= 0
    assert first.json["token_mismatches"]["prompt"] == first.json["requests"]["ok"]  # 128 were sent
    assert first.json["effective_concurrency"] > 0 and first.json["tokens_per_chunk"] == 1.0


def test_a_load_whose_only_worker_died_fails(home: Home) -> None:
    with serving(0.01, 0.001) as (paced, url):
        wanted = (url, "--no-calibrate", "--workers", "1", "-c", "2", "-d", "600", "--json")
        with subprocess.Popen(
            command("load", *wanted, "--output-tokens", "2"),
            env=home.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as load:
            try:
                while paced.requests < 20:
                    assert load.poll() is None
                (worker,) = psutil.Process(load.pid).children()
                worker.send_signal(signal.SIGKILL)
                out, err = load.communicate(timeout=60)
            finally:
                load.kill()
    assert load.returncode == 1
    assert json.loads(out)["requests"]["ok"] > 0
    assert "all load workers ended: a load worker ended (signal 9)" in err


@pytest.mark.more
def test_under_a_file_limit_a_load_says_what_it_was_held_to(home: Home) -> None:
    wanted = ("--workers", "1", "-c", "200", "-d", "1", "--output-tokens", "2", "--calibrate")
    with serving(0.05, 0.001) as (_, url):
        done = subprocess.run(
            [
                "bash",
                "-c",
                'ulimit -n 64; exec "$@"',
                "x",
                *command("load", url, *wanted, "--json"),
            ],
            env=home.environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert "limited to 32 of 200 streams" in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["held_to"] == 32 and report["client"]["verdict"] != "valid"


def test_a_soft_limit_is_raised_as_far_as_it_can_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_limit(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        assert raise_limit(100) == 100  # and never lowered
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert streams_of(64) == 64 - SPARE_FILES and streams_of(10) == 1
    assert most_streams(2) == 2 * most_streams(1)


def test_a_search_and_a_comparison_are_held_to_what_may_be_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "llmtop.loadgen.client.file_limit.most_streams", lambda workers: 32 * workers
    )
    assert load_target.limit_streams(64, 2) is None and capsys.readouterr().err == ""
    assert load_target.limit_streams(1024, 2) == 64
    assert "limited to 64 of 1,024 streams" in capsys.readouterr().err


def test_calibration_raises_the_soft_limit_and_puts_it_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        with room(128) as streams:
            assert streams == 128 and resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 128
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, before[1])
        with pytest.raises(LlmtopError, match="the limit of open files is reached"), room(2):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
