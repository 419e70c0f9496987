"""Credentials against a real TLS server: they get in, and nobody else sees them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from llmtop.cli.main import run
from tests.fleet.secured_prometheus import AUTHORITY, CLIENT, STRANGER, secured
from tests.llmtop_process import Home, command
from tests.terminal import Terminal

TOKEN = "tok-5f2e1c"
PASSWORD = "pw-9d41aa"
BASIC = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "TOKEN_FILE", "USER", "PASSWORD", "PASSWORD_FILE", "CERT", "KEY", "URL"):
        monkeypatch.delenv(f"LLMTOP_PROMETHEUS_{name}", raising=False)


def private(folder: Path, name: str, text: str, mode: int = 0o600) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def key_of(folder: Path, source: Path, mode: int = 0o600) -> str:
    path = folder / f"{source.stem}-{mode:o}.pem"
    shutil.copyfile(source, path)
    path.chmod(mode)
    return str(path)


def fleet(url: str) -> int:
    return run(["fleet", "--prometheus", url, "--cacert", str(AUTHORITY), "--once", "--json"])


def test_a_client_certificate_opens_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMTOP_PROMETHEUS_CERT", str(CLIENT))
    monkeypatch.setenv("LLMTOP_PROMETHEUS_KEY", key_of(tmp_path, CLIENT))
    with secured(clients=CLIENT) as server:
        assert fleet(server.url) == 0
        (one,) = json.loads(capsys.readouterr().out)["instances"]
        assert (one["instance"], one["running"]) == ("gpu-7:8000", 3)


@pytest.mark.parametrize("shown", [None, STRANGER])
def test_without_the_right_one_it_stays_closed(
    shown: Path | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if shown is not None:
        monkeypatch.setenv("LLMTOP_PROMETHEUS_CERT", str(shown))
        monkeypatch.setenv("LLMTOP_PROMETHEUS_KEY", key_of(tmp_path, shown))
    with secured(clients=CLIENT) as server:
        for _ in range(5):  # the server's refusal comes before or after our question
            assert fleet(server.url) == 1
        assert server.seen == []
    found = capsys.readouterr()
    assert found.out == "" and "Prometheus at 127.0.0.1" in found.err
    assert "LLMTOP_PROMETHEUS_CERT" in found.err and "certificate" in found.err


def test_a_key_that_others_may_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMTOP_PROMETHEUS_CERT", str(CLIENT))
    monkeypatch.setenv("LLMTOP_PROMETHEUS_KEY", key_of(tmp_path, CLIENT, 0o644))
    assert fleet("https://127.0.0.1:1") == 2
    assert "other users can read" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["token", "basic"])
def test_a_secret_from_a_private_file_is_sent_and_never_shown(
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if way == "token":
        path = private(tmp_path, "token", TOKEN + "\n")
        monkeypatch.setenv("LLMTOP_PROMETHEUS_TOKEN_FILE", path)
        wanted = f"Bearer {TOKEN}"
    else:
        monkeypatch.setenv("LLMTOP_PROMETHEUS_USER", "ann")
        path = private(tmp_path, "password", PASSWORD + "\n")
        monkeypatch.setenv("LLMTOP_PROMETHEUS_PASSWORD_FILE", path)
        wanted = f"Basic {BASIC}"
    with secured(authorization=wanted) as server:
        assert fleet(server.url) == 0
        assert set(server.seen) == {wanted}
        # A server that answers with what it was sent.
        server.authorization = "another"
        assert fleet(server.url) == 1
    found = capsys.readouterr()
    assert "bad header" in found.err
    assert not any(secret in found.out + found.err for secret in (TOKEN, PASSWORD, BASIC))


@pytest.mark.process
@pytest.mark.more
def test_screens_recordings_and_reports_hold_no_secret(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (tmp_path / "home").mkdir()
    home = Home.make(
        tmp_path / "home",
        {
            "LLMTOP_PROMETHEUS_TOKEN_FILE": private(secrets, "token", TOKEN),
            "LLMTOP_PROMETHEUS_CERT": str(CLIENT),
            "LLMTOP_PROMETHEUS_KEY": key_of(secrets, CLIENT),
        },
    )
    with secured(clients=CLIENT, authorization=f"Bearer {TOKEN}") as server:
        argv = command("fleet", "--prometheus", server.url, "--cacert", str(AUTHORITY))
        changed = ["sh", "-c", f'cd "{home.folder}" && exec "$@"', "sh", *argv]
        with Terminal(changed, home.environ) as terminal:
            terminal.see("gpu-7:8000", PATIENCE_S)
            terminal.type("\r")
            terminal.see("only through ssh", PATIENCE_S)
            terminal.type("\x12")
            terminal.see(lambda _: bool(list(home.folder.glob("*.llmtop"))), PATIENCE_S)
            terminal.type("q")
            terminal.see("enter open", PATIENCE_S)
            terminal.type("q")
            assert terminal.wait(PATIENCE_S) == 0
            seen = terminal.raw
    (recording,) = home.folder.glob("*.llmtop")
    done = home.run("report", str(recording), "--save", str(home.folder / "page.html"))
    key = CLIENT.read_text().split("PRIVATE KEY-----\n")[1].splitlines()[0]
    hidden = [secret.encode() for secret in (TOKEN, key)]
    files = [path for path in home.folder.rglob("*") if path.is_file()]
    assert files
    for text in [seen, done.out.encode(), done.err.encode(), *(one.read_bytes() for one in files)]:
        assert not any(secret in text for secret in hidden)
