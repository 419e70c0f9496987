"""Aborts requests in the API server that received them.

``AsyncLLM.abort`` ends the response with the finish reason ``abort`` and frees the KV blocks at the
next step. It does not change vLLM's own metrics. A request without a token gets an error instead,
because its stream would end as an empty success.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from llmtop_live.step_boundary import NotDone

NOT_YET = "this front end has not received a request yet"
Outcome = tuple[list[str], list[str], list[tuple[str, str]]]


class EventLoop:
    """Runs aborts on the front end's event loop.

    loop: known after the first request; before that there is nothing to abort.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._closed: str | None = None

    def call(self, work: Callable[[], Any], timeout_s: float = 1.0) -> Any:
        """Run ``work()`` on the loop and return its result; an awaitable is awaited.

        Raises NotDone: without a loop, after ``close``, after ``timeout_s`` seconds, and for every
        exception of ``work``.
        """
        if self._closed is not None:
            raise NotDone(self._closed)
        if self.loop is None:
            raise NotDone(NOT_YET)

        async def run() -> Any:
            result = work()
            return await result if inspect.isawaitable(result) else result

        future = asyncio.run_coroutine_threadsafe(run(), self.loop)
        try:
            return future.result(timeout_s)
        except NotDone:
            raise
        except concurrent.futures.TimeoutError:  # before Python 3.11 not the built-in TimeoutError
            future.cancel()
            raise NotDone(f"the front end did not answer within {timeout_s:g} s") from None
        except Exception as error:
            raise NotDone(f"{type(error).__name__}: {error}") from None

    def close(self, reason: str) -> None:
        """Refuse all later calls, with this reason."""
        self._closed = reason


class RequestAbort:
    """Aborts requests of one ``AsyncLLM``. Runs on its event loop."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, ids: Sequence[str], by: str, reason: str) -> Coroutine[Any, Any, Outcome]:
        """Abort the requests with exactly these client ids: (aborted, ended before, refused)."""
        return self._abort(ids, reason)

    async def _abort(self, ids: Sequence[str], reason: str) -> Outcome:
        aborted: list[str] = []
        ended: list[str] = []
        for ident in ids:
            external = self._external_ids(ident)
            if not external:
                ended.append(ident)
                continue
            for one in external:
                self._send_error(one, reason)
            await self._engine.abort(external)
            aborted.append(ident)
        return aborted, ended, []

    def _external_ids(self, ident: str) -> list[str]:
        """vLLM's external ids of a client's request: a completion has one for each prompt."""
        table = self._id_table()
        if ident in table:
            return [ident]
        found: list[str] = []
        while (one := f"{ident}-{len(found)}") in table:
            found.append(one)
        return found

    def _id_table(self) -> Any:
        processor = self._engine.output_processor
        return getattr(processor, "external_req_ids", processor.request_states)

    def _send_error(self, external: str, reason: str) -> None:
        """Send an error to requests without a token. ``abort`` ends the others."""
        processor = self._engine.output_processor
        table = self._id_table()
        internal = table[external] if table is not processor.request_states else [external]
        for ident in internal:
            state = processor.request_states.get(ident)
            if state is not None and state.is_prefilling and state.queue is not None:
                state.queue.put(_error(reason))


def _error(reason: str) -> Exception:
    message = "The operator of this server aborted the request"
    message += f": {reason}." if reason else "."
    try:
        from http import HTTPStatus

        from vllm.exceptions import GracefulHTTPError

        error: Exception = GracefulHTTPError(message, HTTPStatus.INTERNAL_SERVER_ERROR)
    except ImportError:  # before 0.32
        error = RuntimeError(message)
    return error
