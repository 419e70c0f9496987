"""Alerts begin once and end once; what cannot be delivered holds nothing up."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.alerts.delivery import Delivery, bell, check_webhook
from llmtop.alerts.expression import Range, Snapshot, parse
from llmtop.alerts.notify import Notifier
from llmtop.alerts.rules import Alert, Alerts, Rule
from llmtop.alerts.words import document, sentence

NOW = 1_800_000_000.0


def kv(share: float | None) -> dict[str, Snapshot]:
    value = Range(share, share) if share is not None else None
    return {"llama": Snapshot("ready", numbers={"kv": value})}


def test_an_alert_begins_once_and_ends_once() -> None:
    alerts = Alerts([Rule("full", parse("kv > 95% for 10s"))])
    told = []
    shares = [0.5, 0.97, 0.97, 0.5, 0.97, 0.97, 0.97, 0.98, None, 0.5, 0.97, 0.5, 0.5, 0.5, 0.5]
    for beat, share in enumerate(shares):
        told += [(beat, one.begins) for one in alerts.evaluate(kv(share), NOW + 5 * beat)]
    # The first time it does not hold long enough, and the unknown one in between ends nothing.
    assert told == [(6, True), (13, False)]


def test_a_rule_is_for_the_engines_that_it_names() -> None:
    alerts = Alerts([Rule("stuck", parse("hung"), engines=("b",))])
    seen = {name: Snapshot(words=frozenset({"hung"})) for name in ("a", "b")}
    assert [one.engine for one in alerts.evaluate(seen, NOW)] == ["b"]


def test_an_engine_that_is_not_watched_any_more_ends_its_alert() -> None:
    alerts = Alerts([Rule("stuck", parse("hung"))])
    assert alerts.evaluate({"a": Snapshot(words=frozenset({"hung"}))}, NOW)
    (end,) = alerts.evaluate({}, NOW + 60)
    assert not end.begins and "over after 1m00s" in sentence(end)
    assert alerts.active == []


def alert(rule: Rule) -> Alert:
    return Alert(rule, "llama\x1b[31m", True, NOW, NOW - 30, Range(0.97, 0.97))


def test_words_and_document_are_clean() -> None:
    found = alert(Rule("full", parse("kv > 95%")))
    assert sentence(found) == "llama: kv > 95% (now 97%)"
    assert document(found)["value"] == {"low": 0.97, "high": 0.97}
    assert bell(Rule("x", parse("hung"), bell=True), "text") == "\x1b]9;text\x07\x07"
    assert bell(Rule("x", parse("hung")), "text") == ""


@pytest.mark.process
async def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "told.py"
    out = tmp_path / "out"
    script.write_text(
        "import os, sys\n"
        f"open({str(out)!r}, 'w').write(sys.argv[1] + '|' + sys.stdin.read() + '|'"
        " + os.environ['LLMTOP_ALERT_STATUS'])\n"
    )
    said: list[str] = []
    delivery = Delivery(_no_post, said.append, environ={"NOTIFY_SOCKET": "/x"})
    rule = Rule("full", parse("kv > 95%"), command=(sys.executable, str(script), "$(id); `id`"))
    delivery.deliver(alert(rule))
    await delivery.close(30.0)
    word, body, status = out.read_text().split("|")
    assert (word, status, said) == ("$(id); `id`", "begins", [])
    assert json.loads(body)["rule"] == "full"


@pytest.mark.process
async def test_a_command_that_cannot_be_run_is_said() -> None:
    said: list[str] = []
    delivery = Delivery(_no_post, said.append)
    delivery.deliver(alert(Rule("full", parse("hung"), command=("/no/such/program",))))
    await delivery.close(30.0)
    assert said == ["full: /no/such/program cannot be run: no such file or directory"]


async def _no_post(url: str, body: bytes, timeout_s: float) -> int:
    raise AssertionError(url)


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([200], 1, []),
        ([503, 200], 2, []),
        ([404], 1, ["full: the webhook did not accept the alert: HTTP 404"]),
        ([503] * 4, 4, ["full: the webhook did not accept the alert: HTTP 503"]),
        (
            [TimeoutError()] * 4,
            4,
            ["full: the webhook did not accept the alert: no answer in time"],
        ),
    ],
)
async def test_a_webhook_is_tried_a_few_times(
    answers: list[int | Exception], tries: int, said: list[str]
) -> None:
    asked: list[str] = []
    found: list[str] = []
    pauses: list[float] = []

    async def post(url: str, body: bytes, timeout_s: float) -> int:
        asked.append(url)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    delivery = Delivery(post, found.append, sleep=sleep)
    delivery.deliver(alert(Rule("full", parse("hung"), webhook="https://x/token")))
    await delivery.close(30.0)
    assert len(asked) == tries and found == said
    assert pauses == [1.0, 5.0, 15.0][: tries - 1]


async def test_a_broken_webhook_does_not_fill_the_memory() -> None:
    never = asyncio.Event()

    async def post(url: str, body: bytes, timeout_s: float) -> int:
        await never.wait()
        return 200

    said: list[str] = []
    delivery = Delivery(post, said.append)
    for _ in range(150):
        delivery.deliver(alert(Rule("full", parse("hung"), webhook="https://x/token")))
    assert len(said) == 50 and "token" not in said[0]
    await delivery.close(0.0)


@pytest.mark.parametrize("url", ["ftp://x", "https://u:secret@x/", "x", "https://"])
def test_addresses_that_are_none_are_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as error:
        check_webhook(url)
    assert "secret" not in error.value.message


def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.ready()
        notifier.alive("2 engines\nEXTRA=1")
        notifier.stopping()
        notifier.close()
        got = [server.recv(1000).decode() for _ in range(3)]
    assert got == ["READY=1", "WATCHDOG=1\nSTATUS=2 engines EXTRA=1", "STOPPING=1"]
    quiet = Notifier({})
    quiet.ready()
    quiet.close()
