"""When a request reached the HTTP server, before its application had a turn.

uvicorn makes a ``RequestResponseCycle`` as soon as it has read the headers of a request. The
application begins when the event loop comes to it: in a burst, after every request before it. On
one H200 the last of 64 requests that came at once waited 50 ms for that.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from llmtop_vllm.patching import patch

CAME = "llmtop.came"  # in the scope of a request: when it came, on the monotonic clock
SERVERS = ("httptools_impl", "h11_impl")  # uvicorn's two parsers of HTTP/1.1

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


def _stamp(cycle: Any, guarded: Guarded, clock: Callable[[], float]) -> Callable[[], None]:
    make = cycle.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)

        def note() -> None:
            self.scope[CAME] = clock()

        guarded(note, "the arrival of a request")

    return patch(cycle, "__init__", __init__)
