"""What a user reads when a Prometheus does not answer, and what to do then."""

from __future__ import annotations

import pytest

from llmtop.fleet.credentials import Credentials
from llmtop.fleet.faults import Faults

URL = "https://prometheus:9090"
NONE, TOKEN = Credentials(), Credentials("Bearer tok-1")


@pytest.mark.parametrize(
    ("credentials", "status", "said", "message", "hint"),
    [
        (NONE, 401, "", "refuses access (HTTP 401)", "LLMTOP_PROMETHEUS_TOKEN_FILE"),
        (TOKEN, 403, "", "refuses access (HTTP 403)", "does not accept the credentials"),
        (NONE, 302, "", "redirects to another address", "give that address"),
        (NONE, 404, "", "answered HTTP 404", "is it the address of a Prometheus?"),
        (NONE, 503, "", "answered HTTP 503", "in front of it, failed"),
        (NONE, 422, "too many samples", "answered HTTP 422: too many samples", ""),
    ],
)
def test_an_answer_with_another_status(
    credentials: Credentials, status: int, said: str, message: str, hint: str
) -> None:
    error = Faults(URL, credentials).refused(status, said)
    assert message in error.message and "prometheus:9090" in error.message
    assert hint in (error.hint or "") and error.status == status


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (
            "[Errno -2] Name or service not known",
            "the host name prometheus does not resolve",
            "URL",
        ),
        ("[Errno 111] Connection refused", "cannot connect to Prometheus", "URL"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", "requires a client certificate", "_CERT and"),
        ("certificate verify failed: self-signed certificate", "no safe connection", "--cacert"),
    ],
)
def test_no_connection(words: str, message: str, hint: str) -> None:
    error = Faults(URL, NONE).unreachable(words)
    assert message in error.message and hint in (error.hint or "")


def test_a_connection_that_is_closed_depends_on_what_it_is() -> None:
    assert "certificate" in (Faults(URL, NONE).closed().hint or "")
    assert "https" in (Faults("http://p:9090", NONE).closed().hint or "")


def test_what_a_server_repeats_is_hidden() -> None:
    assert Faults(URL, TOKEN).without_secrets("bad tok-1") == "bad ***"
