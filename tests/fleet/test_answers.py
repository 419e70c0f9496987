"""What is made of the answers of a Prometheus: values, labels, pages of targets."""

from __future__ import annotations

import pytest

from llmtop.fleet.faults import PrometheusError
from llmtop.fleet.pages import Pages, pages_of
from llmtop.fleet.promql import Prometheus, Sample
from llmtop.fleet.targets import Target
from tests.fleet.scripted_prometheus import Rows, answering

KEY = (("instance", "a:1"),)
TARGET = {"job": "vllm", "instance": "a:1"}


async def test_values_that_are_no_numbers_are_left_out() -> None:
    texts = ["1.5", "NaN", "+Inf", "-Inf", "1e999", "9e30", "", "one"]
    rows = [({"__name__": "up", "place": text}, text) for text in texts]
    with answering(lambda query, time: rows) as url:
        server = Prometheus(url)
        try:
            found = await server.query("up", 1.0)
        finally:
            await server.close()
    assert [(one.labels["place"], one.value) for one in found] == [("1.5", 1.5)]


async def test_the_labels_of_a_series_are_the_same_object_in_each_answer() -> None:
    values = iter(["1", "2"])

    def rows(query: str, time: float) -> Rows:
        return [({"__name__": "up", **TARGET}, next(values))]

    with answering(rows) as url:
        server = Prometheus(url)
        try:
            (first,), (second,) = await server.query("up", 1.0), await server.query("up", 2.0)
        finally:
            await server.close()
    assert (first.value, second.value) == (1.0, 2.0) and first.labels is second.labels


@pytest.mark.parametrize(
    "body", [b'{"status":"success","data":null}', b'{"status":"error"}', b'{"status":""}']
)
async def test_an_answer_without_data_and_without_a_reason_is_not_that_of_a_prometheus(
    body: bytes,
) -> None:
    with answering(lambda query, time: body) as url:
        server = Prometheus(url)
        try:
            with pytest.raises(PrometheusError, match="not that of a Prometheus"):
                await server.query("up", 1.0)
        finally:
            await server.close()


@pytest.mark.parametrize(
    "metric", ['"up"', "[]", "null", '{"job":1}', '{"job":{}}', '{"job":"\\ud800"}', '{"a":"\x01"}']
)
async def test_labels_that_are_none_are_refused(metric: str) -> None:
    result = f'[{{"metric":{metric},"value":[1,"1"]}}]'
    body = f'{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}'
    with answering(lambda query, time: body.encode()) as url:
        server = Prometheus(url)
        try:
            with pytest.raises(PrometheusError, match="not that of a Prometheus"):
                await server.query("up", 1.0)
        finally:
            await server.close()


def target(**more: str) -> Target:
    labels = {**TARGET, **more}
    return Target(KEY, labels, up=True)


def test_pages_that_remember_are_those_of_the_moment() -> None:
    one = {"__name__": "vllm:x", **TARGET, "exported_job": "own", "pod": "p-1"}
    other = {"__name__": "vllm:x", "job": "vllm", "instance": "b:1"}
    pages = Pages()
    for value, targets in ((1.0, [target()]), (2.0, [target()]), (3.0, [target(pod="p-1")])):
        samples = [Sample(one, value), Sample(other, value)]
        found = pages.of(targets, samples)
        assert {key: page.all for key, page in found.items()} == {
            key: page.all for key, page in pages_of(targets, samples).items()
        }
        (series,) = found[KEY].series("vllm:x")
        pod = {"pod": "p-1"} if "pod" not in targets[0].labels else {}
        assert series == ({"job": "own", **pod}, value)
    assert pages.of([], [Sample(one, 4.0)]) == {}
