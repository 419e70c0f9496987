"""A client of the HTTP API of Prometheus, which Thanos, Mimir and VictoriaMetrics have too.

Answers are not trusted: time and size are limited, and values that are not finite are dropped.
Redirects are not followed, so that the credentials are not sent to another server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Raw, Struct, field

from llmtop import UsageError
from llmtop.engines.metrics.exposition import MAX_VALUE
from llmtop.fleet.credentials import CERTIFICATE, Credentials
from llmtop.fleet.faults import Faults, PrometheusError, wants_certificate
from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import Answer, BrokenAnswer, NoConnection, TooLarge
from llmtop.printable import printable
from llmtop.trust import SYSTEM, ClientCertificateError, Trust, tls_fault
from llmtop.values import replace

TIMEOUT_S = 10.0
MOST_BYTES = 64 * 1024 * 1024  # of one answer; that of 500 instances has 7 MB
MOST_WORDS = 200  # characters shown of a message of the server

_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_T = TypeVar("_T")
Labels = Mapping[str, str]


class Sample(Struct, frozen=True, gc=False):
    """One series of an instant query: its labels, with ``__name__``, and its value.

    The labels of a series are the same object in each answer to a query, so they can be cached.
    """

    labels: Labels
    value: float


class Points(Struct, frozen=True):
    """One series of a range query: (unix seconds, value), oldest first."""

    labels: Labels
    points: tuple[tuple[float, float], ...]


class _Instant(Struct, gc=False):
    metric: Raw
    value: tuple[float, str]


class _Range(Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(Struct, Generic[_T]):
    resultType: str
    result: list[_T]


class _Answer(Struct, Generic[_T]):
    status: str
    data: _Data[_T] | None = None
    error: str = ""
    errorType: str = ""


class _Target(Struct):
    labels: dict[str, str] = field(default_factory=dict)
    lastError: str = ""


class _Targets(Struct):
    activeTargets: list[_Target] = field(default_factory=list)


class _TargetsAnswer(Struct):
    status: str
    data: _Targets | None = None


_INSTANT = msgspec.json.Decoder(_Answer[_Instant])
_RANGE = msgspec.json.Decoder(_Answer[_Range])
_LABELS = msgspec.json.Decoder(dict[str, str])
_TARGETS = msgspec.json.Decoder(_TargetsAnswer)


class Prometheus:
    """A client of one server. Close it at the end.

    url: of the server, without ``/api/v1``. timeout_s: for one complete answer. limit: of an
    answer, bytes. Raises UsageError for an invalid URL or an unusable client certificate.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        *,
        trust: Trust = SYSTEM,
        timeout_s: float = TIMEOUT_S,
        limit: int = MOST_BYTES,
    ) -> None:
        self.url = base_url(url)
        credentials = credentials or Credentials()
        self._timeout_s = timeout_s
        self._limit = limit
        self._faults = Faults(self.url, credentials)
        # The labels in the last answer to each query, by their JSON text.
        self._labels: dict[str, dict[bytes, dict[str, str]]] = {}
        trust = _with_certificate(self.url, credentials, trust)
        self._client = HttpClient(
            limit,
            timeout_s,
            authorization=credentials.authorization,
            trust_of=lambda _: trust,
            accept="application/json",
        )

    async def query(self, expression: str, time: float | None = None) -> list[Sample]:
        """The value of an expression now, or at ``time`` (unix seconds). Raises PrometheusError."""
        parameters = {"query": expression, "timeout": f"{self._timeout_s:g}s"}
        if time is not None:
            parameters["time"] = f"{time:.3f}"
        found = self._decoded(_INSTANT, await self._call("query", parameters))
        known, labels = self._labels.get(expression, {}), dict[bytes, dict[str, str]]()
        samples = []
        try:
            for one in found:  # tens of thousands, so the loop calls no function for each
                text = bytes(one.metric)
                series = known.get(text)
                if series is None:
                    series = _LABELS.decode(text)
                labels[text] = series
                try:
                    value = float(one.value[1])
                except ValueError:
                    continue
                if -MAX_VALUE < value < MAX_VALUE:  # false for NaN
                    samples.append(Sample(series, value))
        except _UNREADABLE:
            raise self._bad_answer() from None
        self._labels[expression] = labels
        return samples

    async def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[Points]:
        """The values of an expression from ``start`` to ``end``, every ``step`` seconds.

        Times are unix seconds. Raises PrometheusError.
        """
        parameters = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}"}
        parameters |= {"step": f"{step:g}", "timeout": f"{self._timeout_s:g}s"}
        found = self._decoded(_RANGE, await self._call("query_range", parameters))
        return [
            Points(
                one.metric,
                tuple(
                    (at, value) for at, text in one.values if (value := _number(text)) is not None
                ),
            )
            for one in found
        ]

    async def scrape_errors(self) -> dict[tuple[str, str], str]:
        """The error of the last scrape of each failing target, by job and instance.

        Only Prometheus itself reports them. Empty for other servers, and if the query fails.
        """
        try:
            body = await self._call("targets", {"state": "active"}, method="GET")
            answer = _TARGETS.decode(body)
        except (PrometheusError, msgspec.MsgspecError, RecursionError):
            return {}
        targets = answer.data.activeTargets if answer.data is not None else []
        return {
            (one.labels.get("job", ""), one.labels.get("instance", "")): one.lastError
            for one in targets
            if one.lastError
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def place(self) -> str:
        """The name of the server for messages, without secrets."""
        return self._faults.place

    async def _call(
        self, endpoint: str, parameters: Mapping[str, str], method: str = "POST"
    ) -> bytes:
        url = f"{self.url}/api/v1/{endpoint}"
        try:
            answer = await self._send(method, url, parameters)
            if answer.status == 405 and method == "POST":  # some proxies allow only GET
                answer = await self._send("GET", url, parameters)
        except TimeoutError:
            raise PrometheusError(
                f"{self.place} did not answer within {self._timeout_s:g} s",
                "it is overloaded or cannot be reached",
            ) from None
        except TooLarge:
            raise PrometheusError(
                f"an answer of {self.place} is larger than {self._limit >> 20} MiB",
                "select fewer instances: --match 'job=\"vllm\"'",
            ) from None
        except BrokenAnswer as error:
            if tls_fault(error.words) is not None or wants_certificate(error.words):
                raise self._faults.unreachable(error.words) from None
            raise self._faults.closed() from None
        except (NoConnection, ValueError) as error:
            raise self._faults.unreachable(str(error)) from None
        if answer.status == 200:
            return answer.body
        reason = self._faults.without_secrets(_server_message(answer.body))
        raise self._faults.refused(answer.status, reason)

    async def _send(self, method: str, url: str, parameters: Mapping[str, str]) -> Answer:
        form = urlencode(parameters)
        if method == "GET":
            return await self._client.request("GET", f"{url}?{form}")
        return await self._client.request(
            method,
            url,
            body=form.encode(),
            content_type="application/x-www-form-urlencoded",
            repeatable=True,
        )

    def _decoded(self, decoder: msgspec.json.Decoder[_Answer[_T]], body: bytes) -> Sequence[_T]:
        try:
            answer = decoder.decode(body)
        except _UNREADABLE:
            raise self._bad_answer() from None
        if answer.status != "success" or answer.data is None:
            reason = self._faults.without_secrets(_clean(answer.error or answer.errorType))
            if not reason:
                raise self._bad_answer()
            raise PrometheusError(f"{self.place} reports: {reason}")
        return answer.data.result

    def _bad_answer(self) -> PrometheusError:
        return PrometheusError(
            f"the answer of {self.place} is not that of a Prometheus", "check the URL and its path"
        )


def base_url(text: str) -> str:
    """The URL of a server without ``/api/v1``. UsageError for text that is no URL.

    A user name, a query or a fragment is refused. It may be a secret, and other users of the
    machine can read the command line.
    """
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if sound and ("@" in parts.netloc or parts.query or parts.fragment):
        raise UsageError(
            "the URL of the Prometheus contains a user name, a query or a fragment",
            "credentials come from LLMTOP_PROMETHEUS_* variables or files, never from the URL",
        )
    if not sound:
        shown = printable(text, MOST_WORDS)
        raise UsageError(f"{shown!r} is not a URL", "write it like http://127.0.0.1:9090")
    return url.rstrip("/").removesuffix("/api/v1")


def _with_certificate(url: str, credentials: Credentials, trust: Trust) -> Trust:
    """``trust`` with the client certificate of the credentials. UsageError if it is unusable."""
    if not url.startswith("https:"):
        return trust
    trust = replace(trust, certificate=credentials.certificate, key=credentials.key)
    try:
        trust.context()  # reports an unusable file before the first request
    except ClientCertificateError:
        raise UsageError(
            f"{CERTIFICATE} and its key are not a usable certificate",
            "both must be PEM files, the key without a password",
        ) from None
    return trust


def _server_message(body: bytes) -> str:
    """The error message in an answer; "" if the answer is not in the format of Prometheus."""
    try:
        return _clean(_INSTANT.decode(body).error)
    except _UNREADABLE:
        return ""


def _clean(words: str) -> str:
    return printable(words, MOST_WORDS)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -MAX_VALUE < value < MAX_VALUE else None  # None for NaN too
