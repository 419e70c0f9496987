"""The page in its three forms, and histograms on coarser bounds."""

from __future__ import annotations

import subprocess

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from llmtop.engines.core.latencies import LatencyHistogram, bucket_of
from llmtop.engines.core.steps import Step, Steps
from llmtop.exporter.buckets import CLASSIC_US, classic, native
from llmtop.exporter.engine_families import MOST_ENGINES, families
from llmtop.exporter.facts import EngineFacts, LoadFacts
from llmtop.exporter.openmetrics import text
from llmtop.exporter.protobuf import delimited
from llmtop.exporter.step_totals import StepTotals
from llmtop.printable import printable
from tests.prometheus_server import program

VALUES = [0.0, 0.000_5, 0.001_023, 0.001_024, 0.02, 0.02, 0.5, 2.0, 300.0]


def histogram(values: list[float]) -> LatencyHistogram:
    buckets: dict[int, int] = {}
    for value in values:
        index = bucket_of(value)
        buckets[index] = buckets.get(index, 0) + 1
    return LatencyHistogram(len(values), sum(values), min(values), max(values), buckets)


def facts(name: str = "llama") -> EngineFacts:
    return EngineFacts(
        name=name,
        kind="vllm",
        state="ready",
        model='a"b\\c\nd',
        level="saturated",
        causes={"batch_limit": 0.7, "prefill": 0.1},
        latencies={"ttft": histogram(VALUES)},
        steps={"decode": (1.5, 100)},
        refused=3,
        memory={"kv": 1e9},
        options={"max_num_seqs": 128, "policy": "fcfs", "on": True},
        changes={"max_num_seqs": 2},
        cause="CUDA out of memory",
        load=LoadFacts(8, 100, 1, ttft_s={"0.95": 0.2}),
    )


def test_counts_at_the_classic_bounds_are_exact() -> None:
    for bound, count in classic(histogram(VALUES))[:-1]:
        microseconds = round(float(bound) * 1e6)
        assert microseconds in CLASSIC_US
        assert count == sum(round(value * 1e6) < microseconds for value in VALUES), bound
    assert classic(histogram(VALUES))[-1] == ("+Inf", len(VALUES))


def test_native_buckets_hold_every_value_near_its_place() -> None:
    zero, found = native(histogram(VALUES))
    assert zero == 1 and zero + sum(found.values()) == len(VALUES)
    for index in found:
        low, high = 2 ** ((index - 1) / 8), 2 ** (index / 8)
        assert any(low * 0.99 <= value <= high * 1.01 for value in VALUES)


def test_the_page_is_openmetrics() -> None:
    page = text(families([facts(), facts("second")]))
    found = {family.name: family for family in text_string_to_metric_families(page)}  # type: ignore[no-untyped-call]
    ttft = found["llmtop_ttft_seconds"]
    assert ttft.type == "histogram"
    assert {sample.labels["engine"] for sample in ttft.samples} == {"llama", "second"}
    why = {sample.labels["llmtop_why"]: sample.value for sample in found["llmtop_why"].samples}
    assert why["batch_limit"] == 1 and sum(why.values()) == 1
    (info, _) = found["llmtop_engine"].samples
    assert info.labels["model"] == 'a"b\\c�d'
    assert found["llmtop_requests_refused"].samples[0].value == 3


@pytest.mark.process
def test_promtool_takes_the_plain_form() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text(families([facts()]), plain=True),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr  # 3: remarks on style
    assert "error" not in done.stderr


def test_what_is_not_known_has_no_series() -> None:
    page = text(families([EngineFacts("x", "vllm", "starting")]))
    assert "llmtop_ttft" not in page and "llmtop_kv" not in page and "nan" not in page.lower()


def test_the_number_of_engines_is_bounded() -> None:
    page = text(families([facts(f"e{n}") for n in range(500)]))
    assert page.count("llmtop_engine_info{") == MOST_ENGINES


def test_the_protobuf_form_is_whole() -> None:
    message = delimited(families([facts()]))
    at = 0
    names = []
    while at < len(message):
        size = shift = 0
        while True:
            byte = message[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = message[at : at + size]
        assert body[0] == 0x0A
        names.append(body[2 : 2 + body[1]].decode())
        at += size
    assert at == len(message) and "llmtop_ttft_seconds" in names


def step(prefill: int, decode: int, refused: int | None = None) -> Step:
    values = (None,) * 3
    return Step(
        1, 1.0, 0.25, 1, *values[:1], prefill, decode, *values, 1, 0, None, 0, None,
        None, None, None, 0.01, 0.0, None, refused,
    )  # fmt: skip


def test_steps_are_added_up_by_kind() -> None:
    totals = StepTotals()
    totals.add(Steps((step(10, 0), step(0, 8), step(4, 8, 2), step(0, 0)), lost=3, ranks=1))
    assert {kind: count for kind, (_, count) in totals.steps.items()} == {
        "prefill": 1,
        "decode": 1,
        "mixed": 1,
        "empty": 1,
    }
    assert totals.refused == 2 and totals.lost == 3
    assert totals.host_gap_s == pytest.approx(0.04)


def test_hostile_words_are_labels_like_others_and_no_series_comes_twice() -> None:
    evil = '\x1b[31m"}\n\\u202e\u202e<b>' + "x" * 5000
    twins = [
        msgspec.structs.replace(
            facts(evil + str(n)),
            model=evil,
            version=evil,
            url=evil,
            cause=evil,
            options={evil + "a": 10**400, evil + "b": 1, evil + "c": 2, "text": evil},
            changes={evil + "a": 1, evil + "b": 2},
        )
        for n in range(2)
    ]
    page = text(families([*twins, facts()]))
    seen = set()
    for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            series = (sample.name, *sorted(sample.labels.items()))
            assert series not in seen
            seen.add(series)
            assert all(printable(value, 120) == value for value in sample.labels.values())
    assert {
        labels["engine"] for labels in (dict(one[1:]) for one in seen) if "engine" in labels
    } == {
        "llama",
        printable(evil, 120),
    }
    assert delimited(families(twins))
