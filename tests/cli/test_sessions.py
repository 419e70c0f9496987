"""What can be had of an engine that llmtop did not start."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.live_protocol import LiveError, LiveState
from llmtop.engines.core.options import Applies, Outcome
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.simulated import adapter as simulated
from llmtop.engines.tensorrt_llm import adapter as tensorrt_llm
from llmtop.operations.session import EngineSession
from llmtop.operations.wiring import Wiring
from llmtop.trust import Trust
from llmtop.values import replace
from tests.fake_cap import FakeCap
from tests.llmtop_process import Home

pytestmark = pytest.mark.process

URL = "http://127.0.0.1:9"


class Stock(FakeCap):
    """An engine's own live options, over HTTP."""

    def __init__(self, url: str, api_key: str, trust: Trust) -> None:
        super().__init__(8)
        self.asked_with = (url, api_key)
        self.silent = False

    async def get(self) -> LiveState:
        if self.silent:
            raise LiveError("the engine wants a key (HTTP 401)")
        return await super().get()


def session(adapter: Adapter, **more: str) -> EngineSession:
    wiring = Wiring({"LLMTOP_API_KEY": "k", **more})
    return wiring.session(Endpoint("there", adapter, URL))


async def test_stock_live_options_are_asked_by_url_with_the_key() -> None:
    there = session(replace(simulated.ADAPTER, stock_live=Stock))
    assert isinstance(there.live, Stock)
    assert there.live.asked_with == (URL, "k")
    two_keys = session(replace(simulated.ADAPTER, stock_live=Stock), LLMTOP_ADMIN_API_KEY="a")
    assert isinstance(two_keys.live, Stock) and two_keys.live.asked_with == (URL, "a")
    options = {option.name: option for option in (await there.options())[0]}
    assert (options["max_num_seqs"].value, options["max_num_seqs"].launch) == (8, 16)
    # Whatever the others were launched with, it need not be the default.
    assert options["gpu_memory_utilization"].value is None
    cap, memory = await there.change({"max_num_seqs": 3, "gpu_memory_utilization": 0.5})
    assert (cap.outcome, cap.before, cap.after) == (Outcome.APPLIED, 8, 3)
    assert memory.outcome is Outcome.REFUSED
    assert "restart" in (memory.reason or "")
    there.live.silent = True
    options_now, why = await there.options()
    assert all(option.value is None for option in options_now)
    assert "wants a key" in why
    await there.close()


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (simulated.ADAPTER, "changes options live only if llmtop started it"),
        (tensorrt_llm.ADAPTER, "changes no option while it runs"),
    ],
)
async def test_without_them_it_says_what_cannot_be_had(adapter: Adapter, words: str) -> None:
    there = session(adapter)
    options, why = await there.options()
    assert "llmtop did not start it" in why
    assert words in why
    assert {option.applies for option in options} == {Applies.RESTART}
    (change,) = await there.change({options[0].name: 1})
    assert change.outcome is Outcome.REFUSED
    assert "cannot be changed from here" in (change.reason or "")
    await there.close()


def test_the_key_of_an_engine_is_the_environments_else_that_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" from-file\n")
    spec = LaunchSpec("sim", "a", "m", "127.0.0.1", 1, api_key_file=str(file))
    record = EngineRecord(spec, (), (), 1, 1, "boot", URL, "/log", None, 0.0)
    ours = Endpoint("a", simulated.ADAPTER, URL, record=record)
    assert Wiring({}).key_for(ours) == "from-file"
    assert Wiring({"LLMTOP_API_KEY": "set"}).key_for(ours) == "set"
    assert Wiring({}).key_for(replace(ours, record=None)) == ""
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        Wiring({}).key_for(ours)


CAP_KEY = "pp_max_micro_batch_size"


class Sglang(http.server.BaseHTTPRequestHandler):
    """As much of somebody's SGLang as it takes to recognise and change it."""

    cap = 8

    def do_GET(self) -> None:
        state = {CAP_KEY: Sglang.cap, "effective_max_running_requests_per_dp": 8}
        answers: dict[str, Any] = {
            "/v1/models": {"data": [{"id": "m", "owned_by": "sglang"}]},
            "/server_info": {"version": "0.5.23", "pp_size": 1, "internal_states": [state]},
        }
        if self.path not in answers:
            self.answer(404, {})
        elif self.headers.get("Authorization") != "Bearer its-key":
            self.answer(401, {})
        else:
            self.answer(200, answers[self.path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Sglang.cap = body["server_args"][CAP_KEY]
        self.answer(200, [True])

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sglang_url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sglang) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_somebody_elses_sglang_is_changed_by_url(tmp_path: Path, sglang_url: str) -> None:
    home = Home.make(tmp_path, {"LLMTOP_API_KEY": "its-key"})
    done = home.run("set", sglang_url, "max_running_requests=3", "--json")
    assert done.code == 0, done.err
    (change,) = done.json["changes"]
    assert (change["from"], change["to"], change["outcome"]) == (8, 3, "applied")
    listed = home.run("options", sglang_url, "--json").json
    options = {option["name"]: option for option in listed["options"]}
    cap = options.pop("max_running_requests")
    assert (cap["value"], cap["maximum"], cap["applies"]) == (3, 8, "drains")
    assert {option["value"] for option in options.values()} == {None}
