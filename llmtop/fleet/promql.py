"""The HTTP API of a Prometheus, or of what speaks it (Thanos, Mimir, VictoriaMetrics).

Its answers are not trusted: they are bounded in time and size, and a value that is no finite number
is dropped. Redirects are not followed, so that the credentials reach no other server.
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
MOST_BYTES = 64 * 1024 * 1024  # of one answer; 500 instances send 7 MB
MOST_WORDS = 200  # characters shown of what the server says

_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_T = TypeVar("_T")
Labels = Mapping[str, str]


class Sample(Struct, frozen=True, gc=False):
    """One series of an instant query: its labels (``__name__`` is one), its value.

    The labels of a series are the same object as in the answer before.
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
    """Asks one server. Close it at the end.

    url: the server, with the path below which its API is. timeout_s: for one answer as a whole.
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
        # The labels of the last answer to each question, by how they were written.
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
        """The value of an expression now, or at ``time``. Raises PrometheusError."""
        asked = {"query": expression, "timeout": f"{self._timeout_s:g}s"}
        if time is not None:
            asked["time"] = f"{time:.3f}"
        found = self._decoded(_INSTANT, await self._ask("query", asked))
        known, labels = self._labels.get(expression, {}), dict[bytes, dict[str, str]]()
        samples = []
        try:
            for one in found:  # tens of thousands: no call for each of them
                text = bytes(one.metric)
                series = known.get(text)
                if series is None:
                    series = _LABELS.decode(text)
                labels[text] = series
                try:
                    value = float(one.value[1])
                except ValueError:
                    continue
                if -MAX_VALUE < value < MAX_VALUE:  # NaN is not
                    samples.append(Sample(series, value))
        except _UNREADABLE:
            raise self._no_prometheus() from None
        self._labels[expression] = labels
        return samples

    async def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[Points]:
        """The values of an expression over a span. Raises PrometheusError."""
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}"}
        asked |= {"step": f"{step:g}", "timeout": f"{self._timeout_s:g}s"}
        found = self._decoded(_RANGE, await self._ask("query_range", asked))
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
        """What the last scrape of each failing target said, by job and instance.

        Only a Prometheus itself can say so: empty where the server does not.
        """
        try:
            body = await self._ask("targets", {"state": "active"}, method="GET")
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
        """The server, as it may be shown."""
        return self._faults.place

    async def _ask(self, what: str, asked: Mapping[str, str], method: str = "POST") -> bytes:
        url = f"{self.url}/api/v1/{what}"
        try:
            answer = await self._send(method, url, asked)
            if answer.status == 405 and method == "POST":  # some front ends allow only reading
                answer = await self._send("GET", url, asked)
        except TimeoutError:
            raise PrometheusError(
                f"{self.place} did not answer within {self._timeout_s:g} s",
                "it is overloaded or cannot be reached",
            ) from None
        except TooLarge:
            raise PrometheusError(
                f"an answer of {self.place} is larger than {self._limit >> 20} MiB",
                "ask for fewer instances: --match 'job=\"vllm\"'",
            ) from None
        except BrokenAnswer as error:
            if tls_fault(error.words) is not None or wants_certificate(error.words):
                raise self._faults.unreachable(error.words) from None
            raise self._faults.closed() from None
        except (NoConnection, ValueError) as error:
            raise self._faults.unreachable(str(error)) from None
        if answer.status == 200:
            return answer.body
        raise self._faults.refused(answer.status, self._faults.without_secrets(_said(answer.body)))

    async def _send(self, method: str, url: str, asked: Mapping[str, str]) -> Answer:
        form = urlencode(asked)
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
            raise self._no_prometheus() from None
        if answer.status != "success" or answer.data is None:
            said = self._faults.without_secrets(_clean(answer.error or answer.errorType))
            raise PrometheusError(f"{self.place} reports: {said}")
        return answer.data.result

    def _no_prometheus(self) -> PrometheusError:
        return PrometheusError(
            f"the answer of {self.place} is not that of a Prometheus", "check the URL and its path"
        )


def base_url(text: str) -> str:
    """The address of a server as it is asked. UsageError for what is none.

    A user or a query in it is refused: it may be a secret, and the command line is public.
    """
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if sound and ("@" in parts.netloc or parts.query or parts.fragment):
        raise UsageError(
            "the URL of the Prometheus holds a user name or a query",
            "credentials come from LLMTOP_PROMETHEUS_* variables or files, never from the URL",
        )
    if not sound:
        shown = printable(text, MOST_WORDS)
        raise UsageError(f"{shown!r} is not a URL", "write it like http://127.0.0.1:9090")
    return url.rstrip("/").removesuffix("/api/v1")


def _with_certificate(url: str, credentials: Credentials, trust: Trust) -> Trust:
    """trust, with the certificate of the credentials. UsageError when that cannot be used."""
    if not url.startswith("https:"):
        return trust
    trust = replace(trust, certificate=credentials.certificate, key=credentials.key)
    try:
        trust.context()  # a file that cannot be used is reported before anything is asked
    except ClientCertificateError:
        raise UsageError(
            f"{CERTIFICATE} and its key are not a certificate that can be used",
            "both are PEM files, the key without a password",
        ) from None
    return trust


def _said(body: bytes) -> str:
    """What the server says is wrong, when it says so in its own format."""
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
    return value if -MAX_VALUE < value < MAX_VALUE else None  # NaN is neither
