"""Why a Prometheus did not answer, in words that say what to do."""

from __future__ import annotations

from urllib.parse import urlsplit

from llmtop import LlmtopError
from llmtop.fleet.credentials import CERTIFICATE, KEY, PASSWORD_FILE, TOKEN_FILE, USER, Credentials
from llmtop.trust import tls_fault

# What OpenSSL says where a server refuses a client without a certificate, or with another one.
_CERTIFICATE_WANTED = ("CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "HANDSHAKE_FAILURE")
# Errors of resolvers for an unknown name.
_NO_SUCH_NAME = ("Name or service not known", "No address associated", "nodename nor servname")


class PrometheusError(LlmtopError):
    """A Prometheus did not answer a question. status: of its HTTP answer, None without one."""

    def __init__(self, message: str, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class Faults:
    """The faults of one server. url: of its API."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = url
        self._has_credentials = bool(credentials.authorization)
        self._has_certificate = bool(credentials.certificate)
        self._secrets = credentials.secrets

    @property
    def place(self) -> str:
        """The server, as it may be shown."""
        parts = urlsplit(self._url)
        return f"Prometheus at {parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def unreachable(self, words: str) -> PrometheusError:
        """No connection. words: of the exception."""
        if wants_certificate(words):
            return PrometheusError(
                f"{self.place} wants a certificate of its clients", self._certificate_hint
            )
        if (fault := tls_fault(words)) is not None:
            return PrometheusError(f"no safe connection to {self.place}: {fault[0]}", fault[1])
        if any(one in words for one in _NO_SUCH_NAME):
            host = urlsplit(self._url).hostname
            return PrometheusError(f"no host has the name {host}", "check the URL")
        return PrometheusError(f"nothing answers as {self.place}", "check the URL and the network")

    def closed(self) -> PrometheusError:
        """A server that wants another certificate often says so by closing the connection."""
        words = f"{self.place} closed the connection without an answer"
        if not self._url.startswith("https:"):
            return PrometheusError(words, "is it https rather than http?")
        return PrometheusError(words, f"it may want a certificate: {self._certificate_hint}")

    @property
    def _access_hint(self) -> str:
        if self._has_credentials:
            return "it does not accept the credentials of the LLMTOP_PROMETHEUS_ variables"
        return f"set {TOKEN_FILE}, or {USER} and {PASSWORD_FILE}"

    @property
    def _certificate_hint(self) -> str:
        if self._has_certificate:
            return f"it does not take the one of {CERTIFICATE}"
        return f"set {CERTIFICATE} and {KEY} to paths of PEM files"

    def refused(self, status: int, said: str) -> PrometheusError:
        """It answered with another status. said: in its own words, "" for none."""
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
            f"{self.place} answered HTTP {status}" + (f": {said}" if said else ""),
            "" if said else _http_hint(status),
            status,
        )

    def without_secrets(self, words: str) -> str:
        """What a server says may be what it was sent."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _http_hint(status: int) -> str:
    if status >= 500:
        return "the server, or a proxy before it, has a fault"
    return "is it the address of a Prometheus?"


def wants_certificate(words: str) -> bool:
    """Whether a server refuses the client's certificate, or wants one."""
    return any(one in words for one in _CERTIFICATE_WANTED)
