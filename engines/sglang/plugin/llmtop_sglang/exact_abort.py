"""Aborts requests by their exact ids. SGLang itself also aborts ids that begin with the given one.

The plugin calls SGLang's own ``abort_request``, because that knows all the queues and releases what
a request holds. During the call, the queue contains only the wanted request, and other requests
whose ids begin with the wanted id have a temporary id.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

BROADCAST = "\x01llmtop-abort:"  # prefix of an abort that SGLang sends to all ranks
HIDDEN = "\x01"  # prefix of a temporary id


class ExactAbort:
    """Aborts requests of one scheduler. Runs on its thread.

    broadcasts: whether several ranks must abort a request in the same round. If so, SGLang's lead
    rank broadcasts the aborts of ``take_outgoing``, and each rank runs them in
    ``handle_broadcast``.
    """

    def __init__(self, scheduler: Any, broadcasts: bool) -> None:
        self._scheduler = scheduler
        self._broadcasts = broadcasts
        self._outgoing: list[Any] = []

    def abort(
        self, ids: Sequence[str], by: str, reason: str
    ) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """Abort requests. Returns the ids (aborted, not found, refused with reasons)."""
        unfinished = {request.rid for request in self._wanted(set(ids))}
        found = [ident for ident in ids if ident in unfinished]
        not_found = [ident for ident in ids if ident not in unfinished]
        message = f"aborted by {by} through llmtop" + (f": {reason}" if reason else "")
        if self._broadcasts and found:
            self._outgoing.append(self._request(BROADCAST + json.dumps([found, message])))
        elif found:
            self._abort(found, message)
        return found, not_found, []

    def take_outgoing(self) -> list[Any]:
        """The aborts that the lead rank must broadcast in this round."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def handle_broadcast(self, request: Any) -> bool:
        """Run an abort that came by broadcast. False if the request is not one of llmtop."""
        text = getattr(request, "rid", None)
        if not isinstance(text, str) or not text.startswith(BROADCAST):
            return False
        ids, message = json.loads(text[len(BROADCAST) :])
        self._abort(ids, message)
        return True

    def _abort(self, ids: Sequence[str], message: str) -> None:
        scheduler, wanted = self._scheduler, set(ids)
        queued = [request for request in scheduler.waiting_queue if request.rid in wanted]
        rest = wanted - {request.rid for request in queued}
        # A request without a token ends with an error: an empty success would mislead its client.
        without_token = {
            "type": "abort",
            "message": message,
            "status_code": HTTPStatus.SERVICE_UNAVAILABLE,
        }
        with_token = {"type": "abort", "message": message}
        for reason, requests in (
            (without_token, [request for request in queued if not len(request.output_ids)]),
            (with_token, [request for request in queued if len(request.output_ids)]),
        ):
            if requests:
                self._abort_queued(requests, reason)
        for ident in rest:
            with self._unique(ident), self._queue([]):
                scheduler.abort_request(self._request(ident))
            self._set_reason(ident, message)

    def _abort_queued(self, requests: list[Any], reason: dict[str, Any]) -> None:
        """Abort queued requests.

        SGLang searches the whole queue for each abort, which takes too long with 100,000 requests.
        So it gets a queue with only the wanted request.
        """
        removed = {id(request) for request in requests}
        kept = [one for one in self._scheduler.waiting_queue if id(one) not in removed]
        for request in requests:
            ident = request.rid
            with self._unique(ident), self._queue([request]), self._with_reason(ident, reason):
                self._scheduler.abort_request(self._request(ident, reason))
        self._scheduler.waiting_queue = kept

    @contextlib.contextmanager
    def _queue(self, requests: list[Any]) -> Iterator[None]:
        """Replace the queue by these requests while the block runs."""
        queue, self._scheduler.waiting_queue = self._scheduler.waiting_queue, requests
        try:
            yield
        finally:
            self._scheduler.waiting_queue = queue

    def _set_reason(self, ident: str, message: str) -> None:
        """Set the message of a running request that SGLang has aborted.

        Its finish_reason is "abort"; the message is for the engine's log. A request without a token
        ends with an error.
        """
        for request in self._running():
            if request.rid != ident:
                continue
            without_token = not len(request.output_ids)
            finish = getattr(request, "to_finish", None)
            if finish is not None and hasattr(finish, "message"):
                finish.message = message
                if without_token and hasattr(finish, "status_code"):
                    finish.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            # SGLang uses this attribute if the request is between two chunks of its prompt.
            between = getattr(self._scheduler, "_pending_chunked_abort_req", None) is request
            if without_token and between and hasattr(request, "discard_output_reason"):
                request.discard_output_reason = _error(message)

    @contextlib.contextmanager
    def _with_reason(self, ident: str, reason: Any) -> Iterator[None]:
        """Add the reason to SGLang's answer: before 0.5.20, an abort in the queue sends none."""
        holder = getattr(self._scheduler, "ipc_channels", self._scheduler)
        sender = getattr(holder, "send_to_tokenizer", None)
        if reason is None or sender is None or hasattr(self._scheduler, "send_abort_output"):
            yield
            return
        send = sender.send_output

        def send_output(output: Any, *rest: Any, **more: Any) -> Any:
            if getattr(output, "rid", None) == ident and not output.finished_reason:
                output.finished_reason = reason
            return send(output, *rest, **more)

        sender.send_output = send_output
        try:
            yield
        finally:
            del sender.send_output

    @contextlib.contextmanager
    def _unique(self, ident: str) -> Iterator[None]:
        """Hide other requests outside the queue whose ids begin with this id."""
        others = [
            request
            for request in self._running()
            if request.rid != ident and request.rid.startswith(ident)
        ]
        for request in others:
            request.rid = HIDDEN + request.rid
        try:
            yield
        finally:
            for request in others:
                request.rid = request.rid.removeprefix(HIDDEN)

    def _wanted(self, ids: set[str]) -> list[Any]:
        queue = self._scheduler.waiting_queue
        return [r for r in (*self._running(), *queue) if r.rid in ids and r.finished_reason is None]

    def _running(self) -> list[Any]:
        """All requests outside the queue that SGLang's own abort searches."""
        scheduler = self._scheduler
        batches = (scheduler.running_batch, scheduler.last_batch)
        grammar = getattr(getattr(scheduler, "grammar_manager", None), "grammar_queue", None)
        found = [
            *(request for batch in batches if batch is not None for request in batch.reqs),
            *(grammar or ()),
        ]
        chunked = getattr(scheduler, "chunked_req", None)
        if chunked is not None:
            found.append(chunked)
        unique = {id(request): request for request in found if request.finished_reason is None}
        return list(unique.values())

    @staticmethod
    def _request(ident: str, reason: Any = None) -> Any:
        from sglang.srt.managers.io_struct import AbortReq

        try:
            return AbortReq(rid=ident, finished_reason=reason)
        except TypeError:
            return AbortReq(rid=ident)


def _error(message: str) -> Any:
    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    return FINISH_ABORT(message, HTTPStatus.SERVICE_UNAVAILABLE)
