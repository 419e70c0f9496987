"""The interface of transports, and URLs of targets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.workload.plan import Target

MODEST = 8  # streams; more than this to another machine need a confirmation


class Transport(Protocol):
    """Sends requests and runs the worker's loop. One thread; only ``turn`` blocks.

    clock: "kernel" if arrival times come from kernel receive stamps, else "user space".
    """

    clock: str

    def send(self, reply: RequestState) -> None:
        """Send ``reply.request``. The answer or the error is written to ``reply``."""

    def drop(self, reply: RequestState) -> None:
        """Close the connection of a reply that ended before its answer was complete."""

    def retarget(self, target: Target) -> None:
        """Send new requests to another server; requests in flight finish at the old one."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` in ``turn`` whenever ``fd`` is readable."""

    def turn(self, until_ns: int) -> None:
        """Wait for events until ``until_ns`` (monotonic) at the latest, and process them."""

    def close(self) -> None:
        """Close every connection."""


class Address(Struct, frozen=True):
    """The parts of a target's URL. path: the base path of its API, ``/v1``."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port in the form of a URL and of a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL of the API's paths."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


def address(url: str) -> Address:
    """Parse ``http://host:port``; keep a path and append ``/v1`` if it is missing.

    Raises UsageError for a URL that is not http or https, or contains a user and password.
    """
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise UsageError(
            "the target is not an http or https URL", "for example http://127.0.0.1:8000"
        )
    if parts.username or parts.password:
        raise UsageError("a URL must not contain a user and password", "give an API key instead")
    path = parts.path.rstrip("/")
    return Address(
        secure=parts.scheme == "https",
        host=host,
        port=port or (443 if parts.scheme == "https" else 80),
        path=path if path.endswith("/v1") else f"{path}/v1",
    )


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine, without a name look-up."""
    host = address(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_modest(url: str, streams: float) -> bool:
    """Whether a target may get this many streams, or requests a second, without confirmation."""
    return streams <= MODEST or is_loopback(url)


def endpoint(target: Target) -> str:
    """The path of the requests to a target."""
    return address(target.url).path + ("/chat/completions" if target.chat else "/completions")
