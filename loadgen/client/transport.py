"""The seam between what is sent and what carries it. Fake: a paced server over a real socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.workload.plan import Target

MODEST = 8  # streams; above it a target on another machine is asked about once


class Transport(Protocol):
    """Carries requests and runs the worker's loop. One thread, nothing blocks but ``turn``.

    clock: "kernel" when moments come from kernel receive stamps, else "user space".
    """

    clock: str

    def send(self, reply: RequestState) -> None:
        """Send ``reply.request``; what comes back goes into ``reply``, also why nothing does."""

    def drop(self, reply: RequestState) -> None:
        """Close the connection of a reply that is over before its answer."""

    def aim(self, target: Target) -> None:
        """Send to another server from now on; what is in flight finishes where it is."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` in ``turn`` whenever ``fd`` can be read."""

    def turn(self, until_ns: int) -> None:
        """Wait for something to happen, at most until a monotonic moment, and deal with it."""

    def close(self) -> None:
        """Close every connection."""


class Address(Struct, frozen=True):
    """A target's URL taken apart. path: where its API begins, ``/v1``."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The URL below which the API's paths lie."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


def address(url: str) -> Address:
    """Take ``http://host:port`` apart; a path, if there is one, is kept, ``/v1`` is added.

    Raises UsageError for anything that is no http or https URL, or holds a user and password.
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
    """Whether a target is this machine, by its name alone: nothing is looked up."""
    host = address(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_modest(url: str, streams: float) -> bool:
    """Whether a target may get this many streams, or requests a second, without confirmation."""
    return streams <= MODEST or is_loopback(url)


def endpoint(target: Target) -> str:
    """The path that requests go to."""
    return address(target.url).path + ("/chat/completions" if target.chat else "/completions")
