"""The time at which a request arrived at the HTTP server's socket.

uvicorn creates a ``RequestResponseCycle`` when it has read the headers of a request. The
application begins later, when the event loop schedules it: in a burst, after all earlier requests.
A busy event loop also reads late. But the kernel reports how long the bytes have waited in the
socket. On one H200 the last of 64 simultaneous requests waited 60 ms there.
"""

from __future__ import annotations

import importlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from llmtop_vllm.patching import patch

ARRIVED = "llmtop.arrived"  # key in the ASGI scope of a request: monotonic seconds
SERVERS = ("httptools_impl", "h11_impl")  # uvicorn's two HTTP/1.1 parsers
# Offset in bytes of ``tcpi_last_data_recv`` (linux/tcp.h): the twelfth 32-bit number, after eight
# bytes. Its unit is ms, its resolution the kernel's clock tick (1, 4 or 10 ms).
LAST_RECEIVED = 8 + 11 * 4
SHORTEST_S = 0.005  # a shorter wait can be the clock tick alone
LONGEST_S = 60.0  # after a longer wait, the server did not read the connection on purpose

Guarded = Callable[[Callable[[], None], str], None]


def stamp_arrivals(
    guarded: Guarded, clock: Callable[[], float] = time.monotonic
) -> list[Callable[[], None]]:
    """Stamp all later requests of this process. Returns functions that restore uvicorn.

    It skips parsers that are not installed or have an unknown structure. Then a request's arrival
    is the moment at which the application begins with it. clock: monotonic seconds.
    """
    undo = []
    for name in SERVERS:
        try:
            cycle = importlib.import_module(f"uvicorn.protocols.http.{name}").RequestResponseCycle
        except (ImportError, AttributeError):
            continue
        undo.append(_stamp(cycle, guarded, clock))
    return undo


def waited_s(transport: Any) -> float:
    """How long the newest bytes of a connection have waited, in seconds; 0.0 if unknown."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    option = getattr(socket, "TCP_INFO", None)
    if connection is None or option is None:
        return 0.0
    try:
        known = connection.getsockopt(socket.IPPROTO_TCP, option, LAST_RECEIVED + 4)
    except OSError:  # a Unix socket
        return 0.0
    if len(known) < LAST_RECEIVED + 4:
        return 0.0
    waited: float = struct.unpack_from("=I", known, LAST_RECEIVED)[0] / 1000
    return waited if SHORTEST_S <= waited <= LONGEST_S else 0.0


def _stamp(cycle: Any, guarded: Guarded, clock: Callable[[], float]) -> Callable[[], None]:
    make = cycle.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)

        def stamp() -> None:
            self.scope[ARRIVED] = clock() - waited_s(getattr(self, "transport", None))

        guarded(stamp, "stamping the arrival of a request")

    return patch(cycle, "__init__", __init__)
