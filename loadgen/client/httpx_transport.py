"""The transport for https: httpx over aiohttp. Times are taken in user space.

httpx's own pool is quadratic in the number of connections (at 256 streams it carried 4,800 of
12,400 chunks a second), so aiohttp's pool is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
from httpx_aiohttp import AiohttpTransport

from llmtop.loadgen.client.transport import address
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.protocol.event_stream import EventStream
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workload.plan import Target
from llmtop.printable import clean
from llmtop.trust import tls_fault

PULSE_NS = 10_000_000
PULSE_MEMORY = 0.98  # decay of a late pulse per pulse: half of it is left after 0.35 s
LEAST_LAG_NS = 1_000_000  # httpx and aiohttp between the socket and us, at 64 streams


class HttpxTransport:
    """Sends requests with httpx. Times are taken in Python, so they include this process's delays.

    The time sent is the time at which httpx got the request. monotonic: nanoseconds. verify: check
    the server's certificate (False in tests).
    """

    clock = "user space"

    def __init__(
        self,
        target: Target,
        counters: SharedCounters,
        monotonic: Callable[[], int] = time.monotonic_ns,
        verify: bool = True,
    ) -> None:
        self.retarget(target)
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
        }
        if target.api_key:
            self._headers["authorization"] = f"Bearer {target.api_key}"
        self._counters, self._cells, self._now = counters, counters.cells, monotonic
        self._lag_ns = 0  # recent lag of this loop
        self._pulse_ns = 0
        self._loop = asyncio.new_event_loop()
        self._verify = target.trust.context() if verify else False
        self._client: httpx.AsyncClient | None = None
        self._tasks: dict[RequestState, asyncio.Task[None]] = {}
        self._ending = False

    def send(self, reply: RequestState) -> None:
        """Send a request in the next turn of the loop."""
        self._tasks[reply] = self._loop.create_task(self._request(reply))

    def drop(self, reply: RequestState) -> None:
        """Cancel a request."""
        task = self._tasks.pop(reply, None)
        if task is not None:
            task.cancel()

    def retarget(self, target: Target) -> None:
        """Send new requests to another server, with the same API key."""
        path = "/chat/completions" if target.chat else "/completions"
        self._url = address(target.url).base_url + path

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever ``fd`` is readable."""

        def on_readable() -> None:
            ready()
            self._loop.stop()

        self._loop.add_reader(fd, on_readable)

    def turn(self, until_ns: int) -> None:
        """Run the loop until a request ends, a watched fd is readable, or ``until_ns``."""
        left = max(0.0, (until_ns - self._now()) / NS)
        timer = self._loop.call_later(left, self._loop.stop)
        if not self._pulse_ns:
            self._pulse()
        self._loop.run_forever()
        timer.cancel()

    def _pulse(self) -> None:
        """Measure the loop's lag with a timer, because there are no kernel stamps."""
        now = self._now()
        if self._pulse_ns:
            late_ns = max(0, now - self._pulse_ns)
            self._counters.lag.record(late_ns)
            self._lag_ns = max(late_ns, int(self._lag_ns * PULSE_MEMORY))
        self._pulse_ns = now + PULSE_NS
        self._loop.call_later(PULSE_NS / NS, self._pulse)

    def close(self) -> None:
        """End every request and the client."""
        self._ending = True  # a request that ends now must not stop the loop, which waits for all
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:  # aiohttp requires creation inside the loop
            # For aiohttp 0 means no limit; None means its default of 100.
            limits = httpx.Limits(max_connections=0)
            self._client = httpx.AsyncClient(
                transport=AiohttpTransport(verify=self._verify, limits=limits),
                headers=self._headers,
                timeout=httpx.Timeout(None, connect=15.0),
                trust_env=False,
            )
        return self._client

    def _take(self, stream: EventStream, data: bytes) -> None:
        now = self._now()
        stream.open_read(now - max(LEAST_LAG_NS, self._lag_ns), exact=False)
        stream.body(data, now)
        stream.close_read()

    async def _request(self, reply: RequestState) -> None:
        named = {"x-request-id": reply.request_id} if reply.request_id else {}
        stream = EventStream(reply)
        try:
            now = self._now()
            reply.begins(now)
            reply.sent(now, now - reply.intended_ns + self._lag_ns)
            async with self._open().stream(
                "POST", self._url, content=reply.request, headers=named
            ) as response:
                stream.begin(self._now())
                kind = response.headers.get("content-type", "").lower().encode()
                coding = response.headers.get("content-encoding", "").encode()
                again = "retry-after" in response.headers
                stream.head(response.status_code, kind, coding, again)
                async for data in response.aiter_raw():
                    self._cells[Cell.READS] += 1
                    self._cells[Cell.UNSTAMPED] += 1
                    self._take(stream, data)
                    if reply.over:
                        return
            stream.end(self._now())
        except httpx.TimeoutException:
            stream.fail("connect time-out")
        except Exception as error:
            # Not only httpx's errors: some of aiohttp's, such as its parser's, are not mapped. A
            # request must end in every case.
            fault = tls_fault(str(error))
            words = fault[0] if fault is not None else clean(str(error)).lower()
            stream.fail(words or type(error).__name__)
        finally:
            self._tasks.pop(reply, None)
            if not self._ending:
                self._loop.stop()
