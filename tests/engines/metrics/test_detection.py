"""Who answers at a URL, and what is said when nobody that we know does."""

from __future__ import annotations

import contextlib
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop import LlmtopError, UsageError
from llmtop.engines.metrics.detection import Detected, normalise, recognise, same_server
from llmtop.engines.metrics.exposition import ScrapeError
from tests.fake_fetch import FakeFetch
from tests.folders import TESTS

DATA = TESTS / "data" / "metrics"
BASE = "http://127.0.0.1:8000"


def server(**pages: object) -> FakeFetch:
    paths = {"version": "/version", "models": "/v1/models", "metrics": "/metrics"}
    paths |= {"info": "/server_info", "prometheus": "/prometheus/metrics"}
    return FakeFetch(
        {
            BASE + paths[name]: [page if isinstance(page, str | ScrapeError) else json.dumps(page)]
            for name, page in pages.items()
        }
    )


def models(name: str, owner: str) -> object:
    return {"object": "list", "data": [{"id": name, "owned_by": owner}, {"id": "lora"}]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (":8000", BASE),
        ("8000", BASE),
        (" 127.0.0.1:8000/ ", BASE),
        ("http://127.0.0.1:8000/v1", BASE),
        ("http://127.0.0.1:8000/v1/", BASE),
        ("http://127.0.0.1:8000/metrics", BASE),
        ("http://127.0.0.1:8000/v1/chat/completions", BASE),
        ("localhost:8000", "http://localhost:8000"),
        ("HTTPS://Gpu-2.Example", "https://gpu-2.example"),
        ("gpu_box:80", "http://gpu_box:80"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_what_is_meant_by_a_url(given: str, expected: str) -> None:
    assert normalise(given) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    "given",
    [
        "",
        ":",
        "http://",
        "ftp://x:1",
        "file:///etc/passwd",
        "x:99999",
        "x:0",
        "x:y",
        "http://a b:1",
        "http://[::1",
        "http://x\x1b[2J:1",
        "-rf /",
        "http://é:1",
    ],
)
def test_what_is_no_url(given: str) -> None:
    with pytest.raises(UsageError, match="not the URL of an engine") as caught:
        normalise(given)
    assert "http://127.0.0.1:8000" in caught.value.hint
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://gateway/engines/1/v1", "http://gateway/engines/1"),
        ("gateway:8000/llama-3", "http://gateway:8000/llama-3"),
        ("gateway:8000/llama-3/", "http://gateway:8000/llama-3"),
        ("https://gw/a/b/metrics", "https://gw/a/b"),
        ("https://[2001:db8::1]:8443/llama/v1/models", "https://[2001:db8::1]:8443/llama"),
        ("http://gw/v1/engines/x", "http://gw/v1/engines/x"),
    ],
)
def test_an_engine_below_a_path_of_a_gateway(given: str, expected: str) -> None:
    assert normalise(given) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    "given",
    ["http://gw/a b", "http://gw/../x", "http://gw/a/./b", "http://gw//x", "http://gw/\x1b[2J"],
)
def test_a_path_that_is_none(given: str) -> None:
    with pytest.raises(UsageError):
        normalise(given)


async def test_an_engine_below_a_path_is_asked_there() -> None:
    below = f"{BASE}/llama-3"
    fetch = FakeFetch(
        {
            f"{below}/version": ['{"version": "0.32.0"}'],
            f"{below}/v1/models": [json.dumps(models("m", "vllm"))],
            f"{below}/metrics": ["vllm:a 1\n"],
        }
    )
    found = await recognise(f"{below}/v1", fetch)
    assert (found.kind, found.url, found.model) == ("vllm", below, "m")


def test_the_same_server_is_so_below_the_same_path_only() -> None:
    assert same_server("http://localhost:1/a", "http://127.0.0.1:1/a")
    assert not same_server("http://localhost:1/a", "http://localhost:1/b")
    assert not same_server("http://localhost:1/a", "http://localhost:1")


def test_a_query_and_a_password_are_refused_without_repeating_them() -> None:
    with pytest.raises(UsageError, match="has a query") as caught:
        normalise("http://gpu:8000/?token=s3cret")
    assert "s3cret" not in caught.value.message + caught.value.hint
    with pytest.raises(UsageError) as caught:
        normalise("http://ann:s3cret@gpu:8000")
    assert "s3cret" not in caught.value.message + caught.value.hint


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert normalise(text).startswith(("http://", "https://"))


async def test_vllm() -> None:
    real = gzip.decompress((DATA / "vllm_spec.txt.gz").read_bytes()).decode()
    fetch = server(version={"version": "0.32.0"}, models=models("tiny", "vllm"), metrics=real)
    assert await recognise("127.0.0.1:8000/v1", fetch) == (Detected("vllm", BASE, "0.32.0", "tiny"))


async def test_vllm_behind_an_api_key_tells_all_but_its_model() -> None:
    locked = ScrapeError("no", status=401)
    fetch = server(version={"version": "0.32.0"}, models=locked, metrics="vllm:a 1\n")
    assert await recognise(BASE, fetch) == Detected("vllm", BASE, "0.32.0")


async def test_vllm_whose_metrics_answer_500_is_still_vllm() -> None:
    broken = ScrapeError("no", status=500)
    fetch = server(version={"version": "0.32.0"}, models=models("m", "vllm"), metrics=broken)
    found = await recognise(BASE, fetch)
    assert (found.kind, found.note) == ("vllm", "no metrics at /metrics")


async def test_the_simulated_engine_is_known_by_its_own_word() -> None:
    about = {"version": "0.1.0", "engine": "llmtop-simulator"}
    fetch = server(version=about, models=models("sim-8b", "vllm"), metrics="vllm:a 1\n")
    assert await recognise(BASE, fetch) == (
        Detected("sim", BASE, "0.1.0", "sim-8b", simulated=True)
    )


async def test_sglang_with_and_without_metrics() -> None:
    info = {"version": "0.5.21"}
    fetch = server(models=models("tiny", "sglang"), metrics="sglang:a 1\n", info=info)
    assert await recognise(BASE, fetch) == Detected("sglang", BASE, "0.5.21", "tiny")
    found = await recognise(BASE, server(models=models("tiny", "sglang"), info=info))
    assert (found.kind, found.version) == ("sglang", "0.5.21")
    assert "--enable-metrics" in found.note


async def test_the_queue_of_tensorrt_llm_is_not_emptied() -> None:
    fetch = server(
        version={"version": "1.1.0"},
        models=models("m", "tensorrt_llm"),
        metrics="[]",
        prometheus="trtllm_a 1\n",
    )
    assert await recognise(BASE, fetch) == Detected("tensorrt-llm", BASE, "1.1.0", "m")
    assert f"{BASE}/metrics" not in fetch.asked


async def test_nobody_there_is_said_at_once() -> None:
    fetch = server(version=ScrapeError("nothing listens at http://127.0.0.1:8000", "running?"))
    with pytest.raises(ScrapeError, match="nothing listens"):
        await recognise(BASE, fetch)
    assert len(fetch.asked) == 1


async def test_an_engine_too_busy_to_say_who_it_is_is_not_called_something_else() -> None:
    busy = ScrapeError("no answer from http://127.0.0.1:8000 within 5 s")
    with pytest.raises(ScrapeError, match="no answer"):
        await recognise(BASE, server(version={"version": "1"}, models=busy, metrics=busy))
    fetch = server(version={"version": "1"}, models=models("m", "vllm"), metrics=busy)
    assert (await recognise(BASE, fetch)).kind == "vllm"


@pytest.mark.parametrize("page", ["<html>hello</html>", "[" * 100_000, '{"version": 7}', "null"])
async def test_something_else_is_said_plainly(page: str) -> None:
    fetch = server(version=page, models=page, metrics=page)
    with pytest.raises(LlmtopError, match="not like an engine that llmtop knows") as caught:
        await recognise(BASE, fetch)
    assert "vLLM, SGLang and TensorRT-LLM" in caught.value.hint


async def test_a_model_name_has_bounds() -> None:
    fetch = server(version={"version": ["x"]}, models=models("m" * 10**6, "vllm"))
    found = await recognise(BASE, fetch)
    assert found.model is not None and len(found.model) == 300
    assert found.version is None


async def test_a_page_of_an_engine_that_is_not_known_is_called_so() -> None:
    page = "# HELP llamacpp:requests_processing n\n# TYPE llamacpp:requests_processing gauge\n"
    page += "llamacpp:requests_processing 1\n"
    with pytest.raises(LlmtopError, match="metrics of an engine that llmtop does not know"):
        await recognise(BASE, server(version="{}", models="{}", metrics=page))
