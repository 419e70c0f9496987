"""Abort of requests in the API server that holds them.

``AsyncLLM.abort`` ends the client's answer (finish reason ``abort``), frees the KV blocks at the
next step, and leaves vLLM's own metrics alone. A request without any token yet gets an error
instead: its stream would end as an empty success.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from llmtop_live.step_boundary import NotDone

NOT_YET = "no request has come to this front end yet"
Outcome = tuple[list[str], list[str], list[tuple[str, str]]]


class EventLoop:
    """The front end's event loop, as the place where aborts are done. It is known from the first
    request on; before that there is nothing to abort."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._closed: str | None = None

    def call(self, work: Callable[[], Any], timeout_s: float = 1.0) -> Any:
        """The result of ``work()`` on the loop, awaited where it can be. Raises NotDone."""
        if self._closed is not None:
            raise NotDone(self._closed)
        if self.loop is None:
            raise NotDone(NOT_YET)

        async def done() -> Any:
            result = work()
            return await result if inspect.isawaitable(result) else result

        future = asyncio.run_coroutine_threadsafe(done(), self.loop)
        try:
            return future.result(timeout_s)
        except NotDone:
            raise
        except concurrent.futures.TimeoutError:  # before 3.11 not the built-in one
            future.cancel()
            raise NotDone(f"the front end did not answer within {timeout_s:g} s") from None
        except Exception as error:
            raise NotDone(f"{type(error).__name__}: {error}") from None

    def close(self, reason: str) -> None:
        """Refuse everything from now on."""
        self._closed = reason


class RequestAbort:
    """Aborts requests of one ``AsyncLLM``, on its event loop."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, ids: Sequence[str], by: str, reason: str) -> Coroutine[Any, Any, Outcome]:
        """The outcome of each id. The ids are those that clients know, exactly."""
        return self._abort(ids, reason)

    async def _abort(self, ids: Sequence[str], reason: str) -> Outcome:
        aborted: list[str] = []
        ended: list[str] = []
        for ident in ids:
            known = self._known(ident)
            if not known:
                ended.append(ident)
                continue
            for one in known:
                self._tell(one, reason)
            await self._engine.abort(known)
            aborted.append(ident)
        return aborted, ended, []

    def _known(self, ident: str) -> list[str]:
        """The engine's own names for a request: completions have one for each of their prompts."""
        there = self._names()
        if ident in there:
            return [ident]
        known: list[str] = []
        while (name := f"{ident}-{len(known)}") in there:
            known.append(name)
        return known

    def _names(self) -> Any:
        processor = self._engine.output_processor
        return getattr(processor, "external_req_ids", processor.request_states)

    def _tell(self, name: str, reason: str) -> None:
        """An error to those that have no token; abort() itself ends the others."""
        processor = self._engine.output_processor
        names = self._names()
        internal = names[name] if names is not processor.request_states else [name]
        for ident in internal:
            state = processor.request_states.get(ident)
            if state is not None and state.is_prefilling and state.queue is not None:
                state.queue.put(_error(reason))


def _error(reason: str) -> Exception:
    words = "The operator of this server aborted the request"
    words += f": {reason}." if reason else "."
    try:
        from http import HTTPStatus

        from vllm.exceptions import GracefulHTTPError

        error: Exception = GracefulHTTPError(words, HTTPStatus.INTERNAL_SERVER_ERROR)
    except ImportError:  # before 0.32
        error = RuntimeError(words)
    return error
