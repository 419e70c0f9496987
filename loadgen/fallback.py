"""The transport for https: httpx over aiohttp, in user-space time.

httpx's own pool is quadratic in the number of connections (at 256 streams it carried 4,800 of
12,400 chunks a second), so aiohttp's carries the bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
from httpx_aiohttp import AiohttpTransport

from llmtop.loadgen.board import Board, Cell
from llmtop.loadgen.chunk import clean
from llmtop.loadgen.clock import NS
from llmtop.loadgen.plan import Target
from llmtop.loadgen.reply import Reply
from llmtop.loadgen.transport import address


class HttpxTransport:
    """Moments are taken when Python gets round to it, so they include this process's own delays.

    ``sent`` is the moment of handing the request to httpx. verify: as in httpx, for tests.
    """

    clock = "user space"

    def __init__(
        self,
        target: Target,
        board: Board,
        monotonic: Callable[[], int] = time.monotonic_ns,
        verify: bool = True,
    ) -> None:
        self.aim(target)
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
        }
        if target.api_key:
            self._headers["authorization"] = f"Bearer {target.api_key}"
        self._cells, self._now = board.cells, monotonic
        self._loop = asyncio.new_event_loop()
        self._verify = verify
        self._client: httpx.AsyncClient | None = None
        self._tasks: dict[Reply, asyncio.Task[None]] = {}
        self._ending = False

    def send(self, reply: Reply) -> None:
        """Send a request; it goes out in the next turn."""
        self._tasks[reply] = self._loop.create_task(self._carry(reply))

    def drop(self, reply: Reply) -> None:
        """Give up a request."""
        task = self._tasks.pop(reply, None)
        if task is not None:
            task.cancel()

    def aim(self, target: Target) -> None:
        """Send to another server from now on; the key stays the one that it was made with."""
        path = "/chat/completions" if target.chat else "/completions"
        self._url = address(target.url).base_url + path

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever ``fd`` can be read."""

        def act() -> None:
            ready()
            self._loop.stop()

        self._loop.add_reader(fd, act)

    def turn(self, until_ns: int) -> None:
        """Run the loop until a request ends or the moment has come."""
        left = max(0.0, (until_ns - self._now()) / NS)
        timer = self._loop.call_later(left, self._loop.stop)
        self._loop.run_forever()
        timer.cancel()

    def close(self) -> None:
        """End every request and the client."""
        self._ending = True  # a request that ends now must not stop the loop that waits for all
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
        if self._client is None:  # made inside the loop, as aiohttp wants it
            # 0 is aiohttp's word for no limit; None would leave it at its default of 100.
            limits = httpx.Limits(max_connections=0)
            self._client = httpx.AsyncClient(
                transport=AiohttpTransport(verify=self._verify, limits=limits),
                headers=self._headers,
                timeout=httpx.Timeout(None, connect=15.0),
                trust_env=False,
            )
        return self._client

    async def _carry(self, reply: Reply) -> None:
        try:
            reply.sent(self._now())
            async with self._open().stream("POST", self._url, content=reply.request) as response:
                reply.first_byte_ns = self._now()
                kind = response.headers.get("content-type", "").lower().encode()
                reply.head(response.status_code, kind, reply.first_byte_ns)
                async for data in response.aiter_raw():
                    self._cells[Cell.READS] += 1
                    self._cells[Cell.UNSTAMPED] += 1
                    reply.body(data, self._now())
                    if reply.over:
                        return
            reply.end(self._now())
        except httpx.TimeoutException:
            reply.fail("connect time-out")
        except Exception as error:
            # Not only httpx's own: what the adapter does not map, aiohttp's parser's for one,
            # comes through as it is, and a request must end whatever happens.
            reply.fail(clean(str(error)).lower() or type(error).__name__)
        finally:
            self._tasks.pop(reply, None)
            if not self._ending:
                self._loop.stop()
