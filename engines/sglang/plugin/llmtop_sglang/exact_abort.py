"""Ends requests by their exact ids. SGLang itself takes an id for the beginning of others.

SGLang's ``abort_request`` stays what it is: it knows all the queues and gives back what a request
holds. While it runs, it sees a queue with the wanted request only, and the others whose ids merely
begin with the wanted one have another id.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

CARRIER = "\x01llmtop-abort:"  # in front of a request of ours that goes to all ranks
HIDDEN = "\x01"


class ExactAbort:
    """Aborts on one scheduler, on its thread.

    everywhere: whether several ranks must end a request in the same round. Then what we want goes
    out with what SGLang's lead rank broadcasts (``extra``), and each rank does it in ``carried``.
    """

    def __init__(self, scheduler: Any, everywhere: bool) -> None:
        self._scheduler = scheduler
        self._everywhere = everywhere
        self._outgoing: list[Any] = []

    def abort(
        self, ids: Sequence[str], by: str, reason: str
    ) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """End these. The ids that are ended, those that were not there, and those refused."""
        found = {request.rid for request in self._wanted(set(ids))}
        there = [ident for ident in ids if ident in found]
        before = [ident for ident in ids if ident not in found]
        message = f"aborted by {by} through llmtop" + (f": {reason}" if reason else "")
        if self._everywhere and there:
            self._outgoing.append(self._request(CARRIER + json.dumps([there, message])))
        elif there:
            self._end(there, message)
        return there, before, []

    def extra(self) -> list[Any]:
        """What the lead rank is to broadcast with this round's own aborts."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def carried(self, request: Any) -> bool:
        """Do what came by broadcast, on this rank. False: the request is none of ours."""
        text = getattr(request, "rid", None)
        if not isinstance(text, str) or not text.startswith(CARRIER):
            return False
        ids, message = json.loads(text[len(CARRIER) :])
        self._end(ids, message)
        return True

    def _end(self, ids: Sequence[str], message: str) -> None:
        scheduler, wanted = self._scheduler, set(ids)
        queued = [request for request in scheduler.waiting_queue if request.rid in wanted]
        rest = wanted - {request.rid for request in queued}
        # Where nothing was answered yet an error, for an empty success is no answer.
        untold = {
            "type": "abort",
            "message": message,
            "status_code": HTTPStatus.SERVICE_UNAVAILABLE,
        }
        told = {"type": "abort", "message": message}
        for reason, requests in (
            (untold, [request for request in queued if not len(request.output_ids)]),
            (told, [request for request in queued if len(request.output_ids)]),
        ):
            if requests:
                self._end_queued(requests, reason)
        for ident in rest:
            with self._alone(ident), self._queue([]):
                scheduler.abort_request(self._request(ident))
            self._explain(ident, message)

    def _end_queued(self, requests: list[Any], reason: dict[str, Any]) -> None:
        """SGLang looks at these alone: at a hundred thousand, once for each would take too long."""
        gone = {id(request) for request in requests}
        left = [one for one in self._scheduler.waiting_queue if id(one) not in gone]
        for request in requests:
            with self._alone(request.rid), self._queue([request]), self._told(request.rid, reason):
                self._scheduler.abort_request(self._request(request.rid, reason))
        self._scheduler.waiting_queue = left

    @contextlib.contextmanager
    def _queue(self, requests: list[Any]) -> Iterator[None]:
        """The queue holds these only."""
        queue, self._scheduler.waiting_queue = self._scheduler.waiting_queue, requests
        try:
            yield
        finally:
            self._scheduler.waiting_queue = queue

    def _explain(self, ident: str, message: str) -> None:
        """A running one ends with finish_reason "abort"; the message is for the engine's log. One
        without a token yet ends with an error."""
        for request in self._running():
            if request.rid != ident:
                continue
            untold = not len(request.output_ids)
            end = getattr(request, "to_finish", None)
            if end is not None and hasattr(end, "message"):
                end.message = message
                if untold and hasattr(end, "status_code"):
                    end.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            # In the middle of a prompt that is computed in pieces SGLang looks here.
            between = getattr(self._scheduler, "_pending_chunked_abort_req", None) is request
            if untold and between and hasattr(request, "discard_output_reason"):
                request.discard_output_reason = _error(message)

    @contextlib.contextmanager
    def _told(self, ident: str, reason: Any) -> Iterator[None]:
        """Before 0.5.20 the HTTP process does not get the reason of an abort from the queue."""
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
    def _alone(self, ident: str) -> Iterator[None]:
        """No other request outside the queue has an id that begins with this one."""
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
        """All outside the queue that SGLang's own abort looks at."""
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
