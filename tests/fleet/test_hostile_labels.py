"""What a hostile Prometheus writes into labels reaches no terminal, no PromQL, no ssh as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmtop.cli.fleet.instance import show_through_ssh
from llmtop.engines.core.samples import Reading
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.instances import Instance, State
from llmtop.fleet.observer import Observer, Table
from llmtop.fleet.promql import Prometheus
from llmtop.fleet.queries import matcher
from llmtop.fleet.single import PrometheusReader, selector
from llmtop.fleet.targets import port_of
from llmtop.printable import printable
from tests.fleet.fake_prometheus import FakePrometheus, Scraped
from tests.fleet.scripted_prometheus import Rows, answering
from tests.llmtop_process import Home
from tests.page_server import page_server
from tests.prometheus_server import running

EVIL = [
    "\x1b[31mred\x1b]0;title\x07",
    "<script>alert(1)</script>",
    'a"} or up{b="',
    "back\\slash\\",
    "two\nlines\r\x00",
    "\u202eright to left\u2066",
    "zero\u200bwidth\ufeff",
    "x" * 5000,
]
GAUGES = {"vllm:num_requests_running": "3", "vllm:num_requests_waiting": "0"}


def rows_of(evil: str) -> dict[str, list[tuple[Mapping[str, str], str]]]:
    """The answers about two instances of the same job and address, with such labels."""
    found: dict[str, list[tuple[Mapping[str, str], str]]] = {"up": [], "at": [], "values": []}
    for pod in ("p-0", "p-1"):
        target = {
            "job": evil,
            "instance": f"{evil}:8000",
            "node": evil,
            "pod": pod,
            "version": evil,
        }
        found["up"].append(({"__name__": "up", **target}, "1"))
        found["at"].append((target, f"{time.time():.3f}"))
        for name, value in GAUGES.items():
            labels = {"__name__": name, "model_name": evil, "engine": evil, **target}
            found["values"].append((labels, value))
    return found


def answer(evil: str, query: str) -> Rows:
    rows = rows_of(evil)
    if query.startswith("timestamp("):
        return rows["at"]
    if query.startswith("up"):
        return rows["up"]
    if query.startswith("last_over_time"):
        return [row for row in rows["values"] if row[0]["__name__"].endswith("running")]
    if query.startswith("{"):
        return rows["values"] if "_bucket" not in query else []
    return []


def is_clean(text: str) -> bool:
    return all(printable(line) == line for line in text.split("\n"))


@pytest.mark.process
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_table_and_json_are_clean(tmp_path: Path, evil: str) -> None:
    home = Home.make(tmp_path)
    with answering(lambda query, time: answer(evil, query)) as url:
        words = ("fleet", "--prometheus", url, "--once", "--group", "model", "--group", "host")
        shown = home.run(*words)
        told = home.run(*words, "--json")
    assert (shown.code, told.code) == (0, 0), (shown.err, told.err)
    assert is_clean(shown.out) and shown.out.count(" 3 ") >= 2
    document = told.json
    assert len(document["instances"]) == 2
    for one in (*document["instances"], *document["groups"]):
        for text in (value for value in one.values() if isinstance(value, str)):
            assert is_clean(text) and "\n" not in text and len(text) <= 400


async def test_reasons_are_clean() -> None:
    page = {'vllm:num_requests_running{engine="0"}': 1.0}
    server = FakePrometheus([{"a:1": Scraped(page)}, {"a:1": Scraped(page, up=False)}])
    observer = Observer(server, list(ADAPTERS.values()), wall=lambda: 1_800_000_000.0)
    server.order = observer.queries.all
    server.errors = {("vllm", "a:1"): "parse error: " + "".join(EVIL)}
    await observer.read_table()
    table: Table = await observer.read_table()
    (one,) = table.instances
    assert one.state is State.STALE and is_clean(one.reason) and len(one.reason) < 500


def instance(host: str, address: str) -> Instance:
    return Instance(
        instance=address, job="vllm", host=host, engine="vllm", model=None, version=None,
        state=State.READY, reason="", sample=None, age_s=None,
        labels={"job": "vllm", "instance": address},
    )  # fmt: skip


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch x", "a b", "`id`", "ann@other", "$(id)", ""]
)
def test_a_host_that_is_none_is_not_given_to_ssh(tmp_path: Path, host: str) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    ssh.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert "not an address for ssh" in show_through_ssh(instance(host, "a:1"), environ)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("gpu-7:8000", 8000),
        ("[fe80::1]:80", 80),
        ("http://gpu-7:8000/x", 8000),
        ("fe80::1", None),
        ("gpu-7", None),
        ("gpu-7:0", None),
        ("gpu-7:99999", None),
        ("gpu-7:८०", None),
        ("a:$(id)", None),
    ],
)
def test_a_port_is_a_number(address: str, port: int | None) -> None:
    assert port_of(address) == port


def test_a_name_of_a_label_that_is_none_is_not_asked_for() -> None:
    labels = {"job": 'a"b', "instance": "x\\y\n", 'pod"} or up{a': "1", "a.b": "2", "pod": "p"}
    assert selector(labels) == r'job="a\"b", instance="x\\y\n", pod="p"'


@pytest.mark.process
@pytest.mark.more
def test_a_real_prometheus_is_asked_for_the_one_that_is_meant(tmp_path: Path) -> None:
    evil = [text for text in EVIL if "\x00" not in text]
    adapter = ADAPTERS["vllm"]

    async def ask(url: str, port: int) -> None:
        client = Prometheus(url)
        observer = Observer(client, list(ADAPTERS.values()))
        table = await observer.read_table()
        for _ in range(600):
            if len(table.instances) == len(evil):
                break
            await asyncio.sleep(0.1)
            table = await observer.read_table()
        assert sorted(one.labels["pod"] for one in table.instances) == sorted(evil)
        for one in table.instances:  # all have the same job and address
            reader = PrometheusReader(Prometheus(url), adapter, one.labels)
            reading: Reading = await reader.read()
            assert reading.running == 3
            await reader.close()
            escaped = one.labels["pod"].replace("\\", "\\\\").replace('"', '\\"')
            wanted = (
                matcher('pod="' + escaped.replace("\n", "\\n") + '"') if len(escaped) < 900 else ""
            )
            if wanted:
                alone = await Observer(client, [adapter], wanted).read_table()
                assert [found.labels["pod"] for found in alone.instances] == [one.labels["pod"]]
        await client.close()

    lines = [f'{name}{{engine="0",model_name="m"}} {value}' for name, value in GAUGES.items()]
    with page_server("\n".join(lines) + "\n") as port:
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"pod": text}} for text in evil]
        job = {"job_name": 'it"s\\', "static_configs": groups}
        with running(tmp_path / "p", [job]) as server:
            asyncio.run(ask(server.url, port))
