"""Names of series, label matchers and credentials; what no message repeats."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.metrics.exposition import Exposition
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.credentials import from_environment
from llmtop.fleet.promql import Prometheus, base_url
from llmtop.fleet.queries import matcher
from tests.folders import ROOT
from tests.metric_page import parse

START = "process_start_time_seconds"


class Recording:
    """A page that remembers which names were looked up."""

    def __init__(self, page: Exposition) -> None:
        self._page = page
        self.names: set[str] = set()

    def value(self, name: str, **labels: str) -> float | None:
        self.names.add(name)
        return self._page.value(name, **labels)

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        self.names.add(name)
        return self._page.series(name)


PAGES = [
    ("vllm", ("metrics/vllm_spec.txt.gz",)),
    ("sglang", ("sglang/metrics_idle_0.5.21.txt.gz", "sglang/metrics_loaded_0.5.16.txt.gz")),
    ("tensorrt-llm", ()),
]


@pytest.mark.parametrize(("kind", "files"), PAGES)
def test_every_name_that_an_adapter_reads_is_asked_for(kind: str, files: Sequence[str]) -> None:
    adapter: Adapter = ADAPTERS[kind]
    assert adapter.series is not None
    asked = {*adapter.series.values, *adapter.series.running, "process_start_time_seconds"}
    for names in adapter.series.histograms.values():
        asked |= {f"{name}{end}" for name in names for end in ("_bucket", "_sum", "")}
    read: set[str] = set()
    for page in (Exposition({}), *(parse(whole(file), adapter.prefixes) for file in files)):
        recording = Recording(page)
        adapter.read(recording, 0.0, 0.0)
        read |= recording.names
    # TensorRT-LLM's bare names could be any program's, so they are not asked for.
    prefix = {"vllm": "vllm:", "sglang": "sglang:", "tensorrt-llm": "trtllm_"}[kind]
    wanted = {name for name in read if name.startswith(prefix)} - {f"{prefix}{START}"}
    assert wanted and wanted <= asked


def whole(file: str) -> str:
    return gzip.decompress((ROOT / "tests" / "data" / file).read_bytes()).decode()


@pytest.mark.parametrize("text", ['job="vllm"', '{job="vllm", pod=~"a|b"}', "", "{}"])
def test_label_matchers_are_taken(text: str) -> None:
    assert matcher(text) in ('job="vllm"', 'job="vllm", pod=~"a|b"', "")


@pytest.mark.parametrize("text", ['job="a"} or up{job="b"', "job=vllm", "1", '__x__"', "a" * 2000])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        matcher(text)


def test_credentials_come_from_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    file.chmod(0o600)
    found = from_environment({"LLMTOP_PROMETHEUS_TOKEN_FILE": str(file)})
    assert found.authorization == "Bearer secret-token" and "secret" not in repr(found)
    file.chmod(0o644)
    with pytest.raises(UsageError, match="other users can read"):
        from_environment({"LLMTOP_PROMETHEUS_TOKEN_FILE": str(file)})


@pytest.mark.parametrize(
    "environ",
    [
        {"LLMTOP_PROMETHEUS_USER": "ann"},
        {"LLMTOP_PROMETHEUS_CERT": "/c.pem"},
        {"LLMTOP_PROMETHEUS_TOKEN": "a\nb"},
        {
            "LLMTOP_PROMETHEUS_TOKEN": "t",
            "LLMTOP_PROMETHEUS_USER": "u",
            "LLMTOP_PROMETHEUS_PASSWORD": "pw-secret",
        },
    ],
)
def test_incomplete_credentials_cost_one_line(environ: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        from_environment(environ)
    assert "pw-secret" not in error.value.message + error.value.hint


def test_a_user_is_sent_as_basic() -> None:
    pair = {"LLMTOP_PROMETHEUS_USER": "ann", "LLMTOP_PROMETHEUS_PASSWORD": "pw"}
    assert from_environment(pair).authorization == "Basic YW5uOnB3"


@pytest.mark.parametrize("url", ["http://u:pw@h:9090", "http://h/?token=x", "ftp://h", "http://"])
def test_a_url_with_a_secret_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        base_url(url)
    assert "pw" not in error.value.message


async def test_nothing_listens() -> None:
    server = Prometheus("http://127.0.0.1:1", timeout_s=5)
    try:
        with pytest.raises(Exception, match="cannot connect to Prometheus at"):
            await server.query("up")
    finally:
        await server.close()
