"""Whom encrypted connections believe: metrics, readiness, models and load, on loopback as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.metrics.scraper import HttpFetch
from llmtop.engines.tuning.tls_flags import certificate_of
from llmtop.http_client.client import redirect_target
from llmtop.http_client.probe import KeptProbe
from llmtop.loadgen.client.model_discovery import NotAnEngine, discover_model
from llmtop.trust import Trust, TrustError, Trusts, from_environment, tls_fault
from tests import fake_vllm
from tests.folders import TESTS
from tests.llmtop_process import Home, free_port

PEM = TESTS / "data" / "tls"
AUTHORITY, SIGNED, CHAIN = PEM / "authority.pem", PEM / "signed.pem", PEM / "chain.pem"
SELF_SIGNED, OTHER_NAME = PEM / "self_signed.pem", PEM / "other_name.pem"

Serve = Callable[[Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(certificate)``: the URL of an engine that shows it."""
    servers = []

    def start(certificate: Path) -> str:
        server = fake_vllm.server("127.0.0.1", 0, str(certificate))
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"https://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def fetched(url: str, trusts: Trusts) -> str:
    fetch = HttpFetch(trusts=trusts)
    try:
        return await fetch(f"{url}/version")
    finally:
        await fetch.close()


async def refusal(url: str, trusts: Trusts) -> ScrapeError:
    with pytest.raises(ScrapeError) as caught:
        await fetched(url, trusts)
    return caught.value


@pytest.mark.parametrize(
    ("certificate", "trusted"),
    [(SELF_SIGNED, SELF_SIGNED), (SIGNED, AUTHORITY), (SIGNED, SIGNED), (CHAIN, AUTHORITY)],
)
async def test_a_certificate_that_was_named_is_believed_on_loopback(
    serve: Serve, certificate: Path, trusted: Path
) -> None:
    url, trusts = serve(certificate), Trusts(str(trusted))
    assert "0.32.0" in await fetched(url, trusts)
    assert KeptProbe(trusts=trusts)(f"{url}/health", 5.0) == 200


async def test_a_self_signed_certificate_is_named_as_such_with_the_way_out(serve: Serve) -> None:
    url = serve(SELF_SIGNED)
    error = await refusal(url, Trusts())
    assert "not trusted (self-signed)" in error.message
    assert "SSL_CERT_FILE" in error.hint and "--cacert" in error.hint
    assert KeptProbe()(f"{url}/health", 5.0) is None


def test_the_load_says_the_same(serve: Serve) -> None:
    url = serve(SELF_SIGNED)
    with pytest.raises(NotAnEngine, match="self-signed") as caught:
        discover_model(url)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert discover_model(url, trust=Trust(authorities=str(SELF_SIGNED))) == "m"


async def test_another_name_in_a_certificate_is_said(serve: Serve) -> None:
    error = await refusal(serve(OTHER_NAME), Trusts(str(AUTHORITY)))
    assert "for another name" in error.message


async def test_https_asked_of_http_is_said() -> None:
    server = fake_vllm.server("127.0.0.1", 0)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        error = await refusal(f"https://127.0.0.1:{server.server_port}", Trusts())
    finally:
        server.shutdown()
        server.server_close()
    assert "does not speak TLS" in error.message and "http rather than https" in error.hint


@pytest.mark.parametrize("shown", [OTHER_NAME, SIGNED, CHAIN, SELF_SIGNED])
async def test_a_pinned_certificate_is_believed_whatever_its_name(
    serve: Serve, shown: Path
) -> None:
    url, trusts = serve(shown), Trusts()
    trusts.pin(url, str(shown))
    assert "0.32.0" in await fetched(url, trusts)
    assert KeptProbe(trusts=trusts)(f"{url}/health", 5.0) == 200


@pytest.mark.parametrize(
    ("shown", "pinned"),
    [
        (SIGNED, SELF_SIGNED),
        (SELF_SIGNED, SIGNED),
        (OTHER_NAME, SIGNED),
        (OTHER_NAME, CHAIN),  # of the same authority, which is in the file behind the first one
    ],
)
async def test_no_other_certificate_passes_for_a_pinned_one(
    serve: Serve, shown: Path, pinned: Path
) -> None:
    url, trusts = serve(shown), Trusts(str(AUTHORITY))
    trusts.pin(url, str(pinned))
    assert "not trusted" in (await refusal(url, trusts)).message
    assert KeptProbe(trusts=trusts)(f"{url}/health", 5.0) is None


def test_a_pin_holds_for_its_port_alone() -> None:
    trusts = Trusts("usual.pem")
    trusts.pin("https://127.0.0.1:8000", "own.pem")
    assert trusts.of("https://127.0.0.1:8000/metrics") == Trust(pinned="own.pem")
    assert trusts.of("https://127.0.0.1:8001") == Trust(authorities="usual.pem")
    trusts.pin("https://127.0.0.1:8000", "")
    assert trusts.of("https://127.0.0.1:8000") == Trust(authorities="usual.pem")


def test_a_named_file_goes_before_the_environment() -> None:
    environ = {"SSL_CERT_FILE": "a.pem", "SSL_CERT_DIR": "certs"}
    assert from_environment(environ).of("https://x") == Trust("a.pem", "certs")
    assert from_environment(environ, "b.pem").of("https://x") == Trust("b.pem")


def test_a_renewed_certificate_is_read_again(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(SIGNED.read_bytes())
    url, trusts = serve(SELF_SIGNED), Trusts()
    trusts.pin(url, str(file))
    assert KeptProbe(trusts=trusts)(f"{url}/health", 5.0) is None
    file.write_bytes(SELF_SIGNED.read_bytes())
    os.utime(file, (1, 1))
    assert KeptProbe(trusts=trusts)(f"{url}/health", 5.0) == 200


@pytest.mark.parametrize("text", ["", "no certificate", None])
async def test_a_file_that_holds_no_certificate_costs_one_clear_line(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "x.pem"
    if text is not None:
        file.write_text(text)
    for trust in (Trust(str(file)), Trust(pinned=str(file))):
        with pytest.raises(TrustError, match=r"x\.pem cannot be used"):
            trust.context()
    with pytest.raises(LlmtopError, match=r"x\.pem cannot be used"):
        await fetched("https://127.0.0.1:9", Trusts(str(file)))


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired "
         "(_ssl.c:1016)", "expired"),
        ("certificate verify failed: self-signed certificate in certificate chain", "private"),
        ("certificate verify failed: unable to get local issuer certificate", "issuer"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "requires a client certificate"),
        ("[SSL] something new", "no safe connection"),
    ],
)  # fmt: skip
def test_what_openssl_says_in_plain_words(words: str, meaning: str) -> None:
    fault = tls_fault(words)
    assert fault is not None and meaning in fault[0] and fault[1]


def test_what_is_no_fault_of_encryption() -> None:
    assert tls_fault("All connection attempts failed") is None


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://h:1/metrics", "/metrics/", "http://h:1/metrics/"),
        ("http://h:1/metrics", "http://h:1/metrics/", "http://h:1/metrics/"),
        # A proxy took the encryption off, and its server does not know.
        ("https://h:1/metrics", "http://h:1/metrics/", "https://h:1/metrics/"),
        ("https://h/metrics", "http://h/metrics/", "https://h/metrics/"),
        ("https://[::1]:1/m", "http://[::1]:1/m/", "https://[::1]:1/m/"),
        ("http://h/metrics", "https://h/metrics", "https://h/metrics"),
        ("http://h:1/metrics", "https://h:2/metrics", "https://h:2/metrics"),
        ("http://h:1/metrics", "http://other:1/metrics", None),
        ("http://h:1/metrics", "https://other/metrics", None),
        ("http://h:1/metrics", "http://h:2/metrics", None),
        ("https://h:1/metrics", "http://h:2/metrics", None),
        ("https://h/metrics", "ftp://h/metrics", None),
    ],
)
def test_redirects_stay_with_the_server_and_never_leave_https(
    url: str, location: str, expected: str | None
) -> None:
    assert redirect_target(url, location) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ""),
        (("--ssl-ca-certs", "ca.pem"), ""),
        (("--ssl-certfile", "a.pem"), "a.pem"),
        (("--ssl_certfile=a.pem", "--ssl-keyfile", "k.pem"), "a.pem"),
    ],
)
def test_the_certificate_that_an_engine_shows(args: tuple[str, ...], expected: str) -> None:
    assert certificate_of(args) == expected


@pytest.mark.parametrize(
    "args",
    [("--ssl-keyfile", "k.pem"), ("--ssl-certfile", "a.pem", "--ssl-cert-reqs", "2")],
)
def test_encryption_that_llmtop_could_not_watch_is_refused(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="ssl"):
        certificate_of(args)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable that stands in for vLLM."""
    path = tmp_path / "vllm"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{fake_vllm.__file__}" "$@"\n')
    path.chmod(0o755)
    return path


def test_an_engine_with_a_certificate_is_run_watched_and_loaded_over_https(
    tmp_path: Path, program: Path
) -> None:
    home = Home.make(tmp_path)
    port = str(free_port())
    (tmp_path / "own.pem").write_bytes(OTHER_NAME.read_bytes())
    flags = ("--ssl-certfile", "own.pem")  # relative to where it is started
    started = ("run", "vllm", "m", "--bin", str(program), "--port", port, "--detach", "--json")
    done = home.run(*started, "--", *flags)
    try:
        assert done.code == 0, done.err
        url = done.json["url"]
        assert url == f"https://127.0.0.1:{port}"
        for target in ("vllm", url):
            seen = home.run("once", target, "--window", "1", "--json")
            assert seen.code == 0, seen.err
            assert seen.json["name"] == "vllm" and seen.json["running"] == 2
            assert seen.json["conditions"] == []
        assert home.run("ps", "--json").json["engines"][0]["state"] == "ready"
        for target in ("vllm", url):
            load = home.run("load", target, "--shape", "hold 2 for 1s", "--no-calibrate", "--json")
            assert load.json["requests"]["ok"] > 0, load.err
            assert load.json["errors"] == {}
    finally:
        home.stop_all()


def test_a_build_without_health_is_ready_when_it_serves_its_models(
    tmp_path: Path, program: Path
) -> None:
    home = Home.make(tmp_path)
    where = ("--bin", str(program), "--port", str(free_port()), "--ready-timeout", "60")
    done = home.run("run", "vllm", "m", *where, "--detach", "--json", "--", "--no-health")
    try:
        assert done.code == 0 and done.json["state"] == "ready", done.err
    finally:
        home.stop_all()


def test_a_certificate_that_is_not_there_is_said_before_the_start(
    tmp_path: Path, program: Path
) -> None:
    home = Home.make(tmp_path)
    done = home.run("run", "vllm", "m", "--bin", str(program), "--", "--ssl-certfile", "no.pem")
    assert done.code == 1 and "no.pem" in done.err and "no such file" in done.err
    assert home.run("ps", "--json").json["engines"] == []


@pytest.mark.more
def test_cacert_and_ssl_cert_file_work_for_every_verb(serve: Serve, tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    url = serve(SELF_SIGNED)
    refused = home.run("once", url, "--window", "0.2")
    assert refused.code == 1 and "self-signed" in refused.err and "--cacert" in refused.err
    trusted = ("--cacert", str(SELF_SIGNED))
    assert home.run("once", url, "--window", "0.5", *trusted).code == 0
    assert home.run("options", url, *trusted).code == 0
    short = ("--shape", "hold 1 for 1s", "--no-calibrate", "--json")
    assert home.run("load", url, *short, *trusted).json["requests"]["ok"] > 0
    named = Home(home.folder, {"SSL_CERT_FILE": str(SELF_SIGNED)})
    assert named.run("once", url, "--window", "0.5").code == 0
    assert named.run("load", url, *short).json["requests"]["ok"] > 0
    missing = home.run("once", url, "--cacert", "no.pem")
    assert missing.code == 2 and "there is no file 'no.pem'" in missing.err
