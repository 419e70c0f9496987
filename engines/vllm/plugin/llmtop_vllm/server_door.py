"""When a request reached the HTTP server's machine, before its application had a turn.

uvicorn makes a ``RequestResponseCycle`` as soon as it has read the headers of a request. The
application begins when the event loop comes to it: in a burst, after every request before it. A
busy event loop reads late, too. The kernel knows for how long the bytes have waited in the socket.
On one H200 the last of 64 requests that came at once waited 60 ms there.
"""

from __future__ import annotations

import importlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from llmtop_vllm.patching import patch

CAME = "llmtop.came"  # in the scope of a request: when it came, on the monotonic clock
SERVERS = ("httptools_impl", "h11_impl")  # uvicorn's two parsers of HTTP/1.1
# ``tcpi_last_data_recv`` of linux/tcp.h: the twelfth 32-bit number, behind eight bytes. In ms, with
# the resolution of the kernel's clock tick (1, 4 or 10 ms).
LAST_RECEIVED = 8 + 11 * 4
SHORTEST_S = 0.005  # less may be the clock tick alone
LONGEST_S = 60.0  # a connection that waits longer than this was not read on purpose

Guarded = Callable[[Callable[[], None], str], None]


def stamp_arrivals(
    guarded: Guarded, clock: Callable[[], float] = time.monotonic
) -> list[Callable[[], None]]:
    """Stamp the requests of this process from now on. The result: what takes the stamps back.

    Servers that are not installed, or have another structure, are left out. Then a request counts
    from the first turn of its application.
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
    """Seconds for which the newest bytes of a connection have been here; 0.0 where unknown."""
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

        def note() -> None:
            self.scope[CAME] = clock() - waited_s(getattr(self, "transport", None))

        guarded(note, "the arrival of a request")

    return patch(cycle, "__init__", __init__)
