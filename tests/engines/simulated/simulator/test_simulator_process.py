"""The simulated engine as what it is: a process that serves HTTP and a socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from tests.llmtop_process import free_port

pytestmark = pytest.mark.process

PATIENCE_S = 20.0  # only ever reached by a failing test


class Engine(Struct):
    process: subprocess.Popen[str]
    port: int
    log: list[str]
    live: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, timeout: float = PATIENCE_S) -> httpx.Response:
        return httpx.get(self.url + path, timeout=timeout)

    def post(self, path: str, body: object) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, timeout=PATIENCE_S)

    def metrics(self) -> dict[str, float]:
        """Every sample, by name and labels other than engine and model."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                labels = {
                    k: v for k, v in sample.labels.items() if k not in ("engine", "model_name")
                }
                found[sample.name + "".join(f"{{{k}={v}}}" for k, v in labels.items())] = (
                    sample.value
                )
        return found

    def ask_live(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.live))
            client.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(client.makefile().readline())  # type: ignore[no-any-return]

    def open_stream(
        self, tokens: int = 4000, prompt: int = 64, version: str = "1.1"
    ) -> socket.socket:
        body = json.dumps(
            {
                "prompt": list(range(prompt)),
                "max_tokens": tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = (
            f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.settimeout(PATIENCE_S)
        stream.sendall((head + body).encode())
        return stream

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)

    def rest_of_log(self) -> str:
        assert self.process.stdout is not None
        return "\n".join(self.log) + self.process.stdout.read()


Launch = Callable[..., Engine]


def start(folder: Path, *flags: str, until: str = "Application startup complete.") -> Engine:
    live = folder / "live.sock"
    command = [
        sys.executable,
        "-m",
        "llmtop.engines.simulated.simulator",
        "--startup-s",
        "0",
        *flags,
    ]
    if "--port" not in flags:
        command += ["--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LLMTOP_LIVE_SOCKET": str(live)},
    )
    assert process.stdout is not None
    engine = Engine(process, 0, [], live)
    for line in process.stdout:
        engine.log.append(line.rstrip())
        if "Serving on http://" in line:
            engine.port = int(line.rsplit(":", 1)[1])
        if until in line:
            break
    return engine


def stop(engine: Engine) -> None:
    engine.process.kill()
    engine.process.wait(PATIENCE_S)
    assert engine.process.stdout is not None
    engine.process.stdout.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    started: list[Engine] = []

    def launch(*flags: str, until: str = "Application startup complete.") -> Engine:
        started.append(start(tmp_path, *flags, until=until))
        return started[-1]

    yield launch
    for engine in started:
        stop(engine)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for the tests that only ask."""
    engine = start(tmp_path_factory.mktemp("shared"), "--speed", "20")
    yield engine
    stop(engine)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_start_says_that_it_is_simulated_and_what_it_found(shared: Engine) -> None:
    assert "simulated" in shared.log[0]
    told = "\n".join(shared.log)
    assert "Model loading took 15.0 GiB and 0.00 seconds" in told
    assert "GPU KV cache size: 920,144 tokens" in told
    assert "Graph capturing finished in 0 secs, took 0.98 GiB" in told


def test_the_plain_routes(shared: Engine) -> None:
    assert shared.get("/health").status_code == 200
    about = shared.get("/version").json()
    assert (about["engine"], about["simulated"]) == ("llmtop-simulator", True)
    model = shared.get("/v1/models").json()["data"][0]
    assert (model["id"], model["max_model_len"]) == ("llama-3.1-8b", 8192)


def test_a_streamed_completion_has_each_token_and_its_usage(shared: Engine) -> None:
    asked = {"prompt": [5, 6, 7], "max_tokens": 20, "ignore_eos": True, "stream": True}
    answer = shared.post("/v1/completions", {**asked, "stream_options": {"include_usage": True}})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(answer.text)
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert len(text) == 20 * 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][
        -1
    ] == "length"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 20)
    assert last["usage"]["prompt_tokens"] == 3
    assert all("usage" not in chunk for chunk in events(shared.post("/v1/completions", asked).text))


def test_a_chat_is_streamed_in_deltas_after_its_role(shared: Engine) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hello there, engine"}]}]
    body = {"messages": messages, "max_tokens": 9, "ignore_eos": True, "stream": True}
    chunks = events(shared.post("/v1/chat/completions", body).text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len("".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)) == 36
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_an_answer_in_one_piece(shared: Engine) -> None:
    answer = shared.post(
        "/v1/completions", {"prompt": "x" * 41, "max_tokens": 5, "ignore_eos": True}
    )
    assert answer.json()["usage"]["prompt_tokens"] == 11  # about four characters a token
    assert len(answer.json()["choices"][0]["text"]) == 20
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    chat = shared.post("/v1/chat/completions", body).json()
    assert chat["choices"][0]["finish_reason"] == "stop"
    assert chat["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "Cannot read the request"),
        (b"\xff", 400, "Cannot read the request"),
        ({}, 400, "prompt"),
        ({"prompt": 7}, 400, "prompt"),
        ({"prompt": ""}, 400, "empty"),
        ({"prompt": []}, 400, "empty"),
        ({"prompt": ["a", "b"]}, 400, "one prompt"),
        ({"prompt": [1, "b"]}, 400, "token ids"),
        ({"prompt": [1, -1]}, 400, "within 0..128255"),
        ({"prompt": [128256]}, 400, "within 0..128255"),
        ({"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": "x", "max_tokens": 10**30}, 400, ""),
        ({"prompt": "x", "min_tokens": 20}, 400, "min_tokens"),
        ({"prompt": "x", "n": 2}, 400, "n must be 1"),
        ({"prompt": "x", "temperature": -1}, 400, "temperature"),
        ({"prompt": [1] * 8000, "max_tokens": 193}, 400, "maximum context length is 8192"),
        ({"prompt": "x", "model": "gpt-9"}, 404, "`gpt-9` does not exist"),
    ],
)
def test_a_bad_request_is_refused_in_openai_shape(
    shared: Engine, body: object, status: int, words: str
) -> None:
    answer = shared.post("/v1/completions", body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == status
    assert words in error["message"]


def test_other_routes_and_methods_are_refused(shared: Engine) -> None:
    assert shared.get("/v1/nothing").status_code == 404
    assert shared.get("/v1/completions").status_code == 405


def test_an_http_1_0_client_gets_a_stream_without_chunks(shared: Engine) -> None:
    with shared.open_stream(tokens=5, version="1.0") as stream:
        text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
    head, _, body = text.partition("\r\n\r\n")
    assert "chunked" not in head
    assert events(body)[-1]["usage"]["completion_tokens"] == 5


def test_the_metrics_show_what_the_engine_does(launch: Launch) -> None:
    engine = launch("--max-num-seqs", "4", "--num-gpu-blocks-override", "512", "--speed", "5")
    body = {"prompt": list(range(64)), "max_tokens": 3, "ignore_eos": True}
    for _ in range(2):
        engine.post("/v1/completions", body)
    idle = engine.metrics()
    assert idle["vllm:num_requests_running"] == 0
    assert idle["vllm:generation_tokens_total"] == 6
    assert idle["vllm:prompt_tokens_total"] == 128
    assert idle["vllm:prefix_cache_queries_total"] == 128
    assert idle["vllm:prefix_cache_hits_total"] == 48
    assert idle["vllm:request_success_total{finished_reason=length}"] == 2
    assert idle["vllm:time_to_first_token_seconds_count"] == 2
    assert idle["vllm:time_to_first_token_seconds_bucket{le=+Inf}"] == 2
    assert idle["vllm:inter_token_latency_seconds_count"] == 4
    assert idle["vllm:request_prompt_tokens_sum"] == 128
    assert 0 < time.time() - idle["process_start_time_seconds"] < 600
    assert not any("spec_decode" in name for name in idle)
    assert any("{num_gpu_blocks=512}" in name for name in idle if "cache_config_info" in name)
    with contextlib.ExitStack() as streams:
        for _ in range(7):
            streams.enter_context(engine.open_stream())
        eventually(lambda: engine.metrics()["vllm:num_requests_running"] == 4)
        busy = engine.metrics()
        assert busy["vllm:num_requests_waiting"] == 3
        assert busy["vllm:num_requests_waiting_by_reason{reason=capacity}"] == 3
        assert 0 < busy["vllm:kv_cache_usage_perc"] <= 1
        assert busy["llmtop_simulator_lag_seconds"] >= 0
    eventually(lambda: engine.metrics()["vllm:request_success_total{finished_reason=abort}"] == 7)
    after = engine.metrics()  # clients that leave free their blocks
    assert (after["vllm:num_requests_running"], after["vllm:num_requests_waiting"]) == (0, 0)
    assert after["vllm:kv_cache_usage_perc"] == 0


def test_a_live_change_shows_in_running_at_once(launch: Launch) -> None:
    engine = launch("--max-num-seqs", "32", "--speculative", "ngram:4")
    with contextlib.ExitStack() as streams:
        for _ in range(24):
            streams.enter_context(engine.open_stream())
        eventually(lambda: engine.metrics()["vllm:num_requests_running"] == 24)
        changes = {"max_num_seqs": 6, "num_speculative_tokens": 0}
        request = {"op": "set", "changes": changes, "evict": True, "wait_s": 10, "by": "test"}
        answer = engine.ask_live(request)
        assert [change["outcome"] for change in answer["changes"]] == ["applied", "applied"]
        assert answer["evicted"] == 18
        shown = engine.metrics()
        assert (shown["vllm:num_requests_running"], shown["vllm:num_requests_waiting"]) == (6, 18)
        drafts = shown["vllm:spec_decode_num_drafts_total"]
        engine.ask_live({"op": "set", "changes": {"max_num_seqs": 32}, "wait_s": 10})
        eventually(lambda: engine.metrics()["vllm:num_requests_running"] == 24)
        assert engine.metrics()["vllm:spec_decode_num_drafts_total"] == drafts
        told = engine.ask_live({"op": "get"})
        assert (told["running"], told["evicted_total"]) == (24, 18)
        assert [entry["by"] for entry in told["history"]] == ["test", "test", ""]


def test_requests_above_the_queue_limit_are_refused_at_once(launch: Launch) -> None:
    engine = launch("--max-num-seqs", "2")
    with contextlib.ExitStack() as streams:
        for _ in range(5):
            streams.enter_context(engine.open_stream())
        eventually(lambda: engine.metrics()["vllm:num_requests_waiting"] == 3)
        engine.ask_live({"op": "set", "changes": {"max_queued_requests": 3}, "wait_s": 10})
        for stream in (True, False):
            body = {"prompt": [1] * 16, "max_tokens": 4, "stream": stream}
            answer = engine.post("/v1/completions", body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "queue is full" in answer.json()["error"]["message"]
        found = engine.metrics()
        assert found["llmtop_simulator_requests_refused_total"] == 2
        assert found["vllm:num_requests_waiting"] == 3  # those that waited keep their place
        engine.ask_live({"op": "set", "changes": {"max_queued_requests": 0}, "wait_s": 10})
        streams.enter_context(engine.open_stream())
        eventually(lambda: engine.metrics()["vllm:num_requests_waiting"] == 4)


@pytest.mark.more
def test_several_tokens_a_step_share_an_event(launch: Launch) -> None:
    engine = launch("--speculative", "ngram:4", "--acceptance", "1", "--speed", "20")
    body = {"prompt": [1] * 64, "max_tokens": 41, "ignore_eos": True, "temperature": 0}
    chunks = events(engine.post("/v1/completions", {**body, "stream": True}).text)
    assert [len(chunk["choices"][0]["text"]) for chunk in chunks] == [4, *[20] * 8]
    found = engine.metrics()
    assert found["vllm:spec_decode_num_accepted_tokens_total"] == 32
    assert found["vllm:spec_decode_num_accepted_tokens_per_pos_total{position=3}"] == 8


@pytest.mark.more
def test_a_client_that_does_not_read_loses_nothing_and_costs_little(launch: Launch) -> None:
    engine = launch("--speed", "1000", "--max-model-len", "40000")
    before = engine.metrics()["process_resident_memory_bytes"]
    with engine.open_stream(tokens=30_000) as stream:
        eventually(lambda: engine.metrics()["vllm:generation_tokens_total"] == 30_000)
        grown = engine.metrics()["process_resident_memory_bytes"] - before
        assert grown < 3 << 20  # its events, one a token, would be 6 MB
        lines = iter(stream.makefile("rb").readline, b"data: [DONE]\n")
        chunks = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
    text = "".join(c["choices"][0]["text"] for c in chunks if c["choices"])
    assert len(text) == 30_000 * 4


def test_the_port_is_taken_but_refuses_until_ready(launch: Launch) -> None:
    port = free_port()
    flags = ("--port", str(port), "--misbehave", "slow-start:600")
    engine = launch(*flags, until="Starting to load model")
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    second = launch("--port", str(port), until="never")
    assert second.ended() == 1
    assert "Address already in use" in second.rest_of_log()
    engine.process.terminate()
    assert engine.ended() == 0


def test_a_failing_start_exits_with_its_cause_in_the_log(launch: Launch) -> None:
    engine = launch("--misbehave", "fail-start", until="never")
    assert engine.ended() == 1
    assert "ValueError: No available memory for the cache blocks" in engine.rest_of_log()


def test_sigterm_ends_it_with_streams_open(launch: Launch) -> None:
    engine = launch()
    with engine.open_stream() as stream:
        stream.recv(1)
        engine.process.terminate()
        assert engine.ended() == 0
    assert not engine.live.exists()


@pytest.mark.more
def test_a_stubborn_engine_stays_until_its_clients_go(launch: Launch) -> None:
    engine = launch("--misbehave", "stubborn")
    with engine.open_stream() as stream:
        stream.recv(1)
        engine.process.terminate()
        assert engine.process.stdout is not None
        assert any("Waiting for connections" in line for line in engine.process.stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            engine.process.wait(0.7)
    assert engine.ended() == 0


def test_a_crash_breaks_streams_and_exits(launch: Launch) -> None:
    engine = launch("--misbehave", "crash:0.5")
    with engine.open_stream() as stream, contextlib.suppress(ConnectionResetError):
        data = b"".join(iter(lambda: stream.recv(65536), b""))
        assert b"[DONE]" not in data
    assert engine.ended() == 1
    assert "EngineDeadError" in engine.rest_of_log()


def test_a_hanging_engine_answers_nothing_and_ignores_sigterm(launch: Launch) -> None:
    engine = launch("--misbehave", "hang:0")

    def silent() -> bool:
        try:
            engine.get("/health", timeout=0.5)
        except httpx.ReadTimeout:
            return True
        return False

    eventually(silent)
    engine.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        engine.process.wait(0.5)


@pytest.mark.more
def test_refusing_connections_after_ready(launch: Launch) -> None:
    engine = launch("--misbehave", "refuse:0")

    def refused() -> bool:
        try:
            engine.get("/health")
        except httpx.ConnectError:
            return True
        return False

    eventually(refused)
    assert engine.process.poll() is None
    assert engine.ask_live({"op": "get"})["ok"] is True


@pytest.mark.more
def test_spoilt_metrics(launch: Launch) -> None:
    engine = launch("--misbehave", "metrics-500")
    assert engine.get("/metrics").status_code == 500
    assert engine.get("/health").status_code == 200
    frozen = launch("--misbehave", "metrics-frozen")
    first = frozen.get("/metrics").text
    frozen.post("/v1/completions", {"prompt": "x"})
    assert frozen.get("/metrics").text == first


@pytest.mark.more
def test_spoilt_live_sockets(launch: Launch) -> None:
    engine = launch("--misbehave", "live-nonsense")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(engine.live))
        client.sendall(b'{"op": "get"}\n')
        answer = client.recv(4096)
    with pytest.raises(ValueError, match=r"."):
        json.loads(answer)
    mute = launch("--misbehave", "live-mute")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.5)
        client.connect(str(mute.live))
        client.sendall(b'{"op": "get"}\n')
        with pytest.raises(TimeoutError):
            client.recv(4096)


def test_an_aborted_request_is_reported_to_its_client(launch: Launch) -> None:
    engine = launch("--max-num-seqs", "1")

    def waits(requests: int) -> Callable[[], bool]:
        return lambda: engine.ask_live({"op": "get"})["waiting"] == requests

    with engine.open_stream(8000, version="1.0") as running, ThreadPoolExecutor(1) as threads:
        eventually(lambda: engine.ask_live({"op": "get"})["running"] == 1)
        with engine.open_stream(version="1.0") as queued:
            eventually(waits(1))
            body = {"prompt": "hello", "max_tokens": 5}
            plain = threads.submit(engine.post, "/v1/completions", body)
            eventually(waits(2))
            rows = engine.ask_live({"op": "requests", "sort": "wait"})["requests"]
            assert [row["state"] for row in rows] == ["waiting", "waiting", "running"]
            ids = [row["id"] for row in rows]
            answer = engine.ask_live({"op": "abort", "ids": ids, "by": "ann"})
            assert sorted(answer["aborted"]) == sorted(ids)
            refused = queued.makefile("rb").read().decode()
        ended = running.makefile("rb").read().decode()
    assert '"finish_reason":"abort"' in ended
    assert "The request was aborted by an operator" in refused
    assert "finish_reason" not in refused
    assert plain.result().status_code == 503
    metrics = engine.metrics()
    assert metrics["vllm:request_success_total{finished_reason=abort}"] == 3
    assert metrics["vllm:time_to_first_token_seconds_count"] == 1
    assert metrics["vllm:kv_cache_usage_perc"] == 0
