"""``llmtop fleet``: its document, its errors."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from llmtop.cli.fleet.table import entry
from llmtop.cli.main import run
from llmtop.engines.core.samples import (
    BucketHistogram,
    EngineSample,
    Latency,
    Quantile,
    Quantiles,
)
from llmtop.fleet.documents import FleetDocument, schema
from llmtop.fleet.instances import Instance, State
from llmtop.fleet.observer import Table
from tests.folders import ROOT

NOW = 1_800_000_000.0


def instance(state: State) -> Instance:
    ttft = Quantiles(Quantile(0.1, "<"), Quantile(0.5, "-", 1.0), Quantile(80.0, ">"), 0.3, 200, 60)
    sample = EngineSample(
        time=NOW, window_s=60.0, running=3, kv_usage=0.2, latencies={Latency.TTFT: ttft}
    )
    return Instance(
        "a:1", "vllm", "a", "vllm", "llama", None, state, "", sample, 1.0,
        ttft=BucketHistogram((0.5, 1.0, float("inf")), (0.0, 30.0, 30.0), 20.0), ttft_window_s=60.0,
    )  # fmt: skip


@pytest.mark.parametrize("state", list(State))
def test_the_document_is_as_its_schema_says(state: State) -> None:
    table = Table(NOW, (instance(state),))
    document = entry(table, table.instances, ("model", "engine"))
    found = msgspec.json.decode(json.dumps(document).encode(), type=FleetDocument)
    assert found.instances[0].state == state.value
    assert found.instances[0].ttft_s.p95 is None
    assert found.instances[0].ttft_s.p95_at_most == 1.0
    known = {field for field in FleetDocument.__struct_fields__}
    assert set(document) == known


def test_the_published_schema_is_that_of_the_document() -> None:
    published = (ROOT / "docs" / "schema" / "fleet.schema.json").read_text()
    assert json.loads(published) == schema()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fleet"], "no Prometheus was given"),
        (["fleet", "--prometheus", "http://u:pw@h", "--once"], "never from the URL"),
        (["fleet", "--prometheus", "h:1", "--json"], "--json needs --once"),
        (["fleet", "--prometheus", "h:1", "--once", "--match", "x"], "label matchers"),
        (["fleet", "--prometheus", "127.0.0.1:1", "--once"], "cannot connect to Prometheus"),
    ],
)
def test_bad_input_costs_one_line(
    argv: Sequence[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLMTOP_PROMETHEUS_URL", raising=False)
    assert run(argv) in (1, 2)
    said = capsys.readouterr().err
    assert words in said and "pw@" not in said and "Traceback" not in said


def test_a_token_that_others_may_read_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("hunter2")
    file.chmod(0o644)
    monkeypatch.setenv("LLMTOP_PROMETHEUS_TOKEN_FILE", str(file))
    assert run(["fleet", "--prometheus", "127.0.0.1:1", "--once"]) == 2
    said = capsys.readouterr().err
    assert "other users can read" in said and "hunter2" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--watch", "20s"], "--watch needs --canary"),
        (["--slo", "ttft=1s"], "--slo needs --canary"),
    ],
)
def test_what_belongs_to_a_canary_is_not_ignored_without_one(
    words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["set", "llama", "max_num_seqs=8", *words]) == 2
    assert said in capsys.readouterr().err
