"""Error messages for a Prometheus that does not answer, with hints."""

from __future__ import annotations

from urllib.parse import urlsplit

from llmtop import LlmtopError
from llmtop.fleet.credentials import CERTIFICATE, KEY, PASSWORD_FILE, TOKEN_FILE, USER, Credentials
from llmtop.trust import tls_fault

# OpenSSL's messages if a server rejects a client's certificate, or a client without one.
_CERTIFICATE_WANTED = ("CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "HANDSHAKE_FAILURE")
# Messages of resolvers for an unknown host name.
_NO_SUCH_NAME = ("Name or service not known", "No address associated", "nodename nor servname")


class PrometheusError(LlmtopError):
    """A query failed. status: the HTTP status of the answer, None without an answer."""

    def __init__(self, message: str, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class Faults:
    """Makes the errors of one server. url: of its API, without ``/api/v1``."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = url
        self._has_credentials = bool(credentials.authorization)
        self._has_certificate = bool(credentials.certificate)
        self._secrets = credentials.secrets

    @property
    def place(self) -> str:
        """The name of the server for messages, without secrets."""
        parts = urlsplit(self._url)
        return f"Prometheus at {parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def unreachable(self, words: str) -> PrometheusError:
        """The error if no connection could be made. words: the text of the exception."""
        if wants_certificate(words):
            return PrometheusError(
                f"{self.place} requires a client certificate", self._certificate_hint
            )
        if (fault := tls_fault(words)) is not None:
            return PrometheusError(f"no safe connection to {self.place}: {fault[0]}", fault[1])
        if any(one in words for one in _NO_SUCH_NAME):
            host = urlsplit(self._url).hostname
            return PrometheusError(f"the host name {host} does not resolve", "check the URL")
        return PrometheusError(f"cannot connect to {self.place}", "check the URL and the network")

    def closed(self) -> PrometheusError:
        """The error if the server closed the connection without an answer.

        A server that requires another client certificate often does that.
        """
        words = f"{self.place} closed the connection without an answer"
        if not self._url.startswith("https:"):
            return PrometheusError(words, "does it use https instead of http?")
        return PrometheusError(words, f"it may require a certificate: {self._certificate_hint}")

    @property
    def _access_hint(self) -> str:
        if self._has_credentials:
            return "it does not accept the credentials of the LLMTOP_PROMETHEUS_ variables"
        return f"set {TOKEN_FILE}, or {USER} and {PASSWORD_FILE}"

    @property
    def _certificate_hint(self) -> str:
        if self._has_certificate:
            return f"it does not accept the certificate of {CERTIFICATE}"
        return f"set {CERTIFICATE} and {KEY} to paths of PEM files"

    def refused(self, status: int, reason: str) -> PrometheusError:
        """The error for an HTTP status other than 200. reason: the server's message, "" if none."""
        if status in (401, 403):
            return PrometheusError(
                f"{self.place} refuses access (HTTP {status})",
                self._access_hint,
                status,
            )
        if status in (301, 302, 303, 307, 308):
            return PrometheusError(
                f"{self.place} redirects to another address", "give that address", status
            )
        return PrometheusError(
            f"{self.place} answered HTTP {status}" + (f": {reason}" if reason else ""),
            "" if reason else _http_hint(status),
            status,
        )

    def without_secrets(self, words: str) -> str:
        """The text with secrets replaced: a server may repeat what it received."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _http_hint(status: int) -> str:
    if status >= 500:
        return "the server, or a proxy in front of it, failed"
    return "is it the address of a Prometheus?"


def wants_certificate(words: str) -> bool:
    """Whether a TLS error means that the server requires a client certificate, or another one."""
    return any(one in words for one in _CERTIFICATE_WANTED)
