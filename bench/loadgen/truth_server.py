"""A paced server in a process of its own that keeps its own stamps of every request.

Prints its port. When its standard input ends it prints, as one JSON document, what really happened
to each request that it answered in full: when it was read, and when each token was sent (monotonic
nanoseconds). At real-time priority where that is allowed, so that its stamps are the truth beside
any crowd.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from contextlib import suppress

from llmtop.loadgen.client import paced_server

TTFT_S, ITL_S = float(sys.argv[1]), float(sys.argv[2])
seen: dict[int, list[int]] = {}
real = paced_server._chunk


def stamped(read_ns: int, chat: bool, last: bool) -> bytes:
    """The server's own event; its stamp is kept here too."""
    data = real(read_ns, chat, last)
    begin = data.index(b'"sent_ns":') + 10
    seen.setdefault(read_ns, []).append(int(data[begin : data.index(b",", begin)]))
    return data


async def serve() -> None:
    server = paced_server.PacedServer(TTFT_S, ITL_S)
    print(await server.start(), flush=True)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, over.set)
    await over.wait()
    loop.remove_reader(0)
    json.dump(seen, sys.stdout)
    sys.stdout.flush()


def main() -> None:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.freeze()
    gc.disable()
    paced_server._chunk = stamped
    asyncio.run(serve())


if __name__ == "__main__":
    main()
