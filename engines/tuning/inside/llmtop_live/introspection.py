"""Protocol 2: internal data of an engine, and requests for it.

A plugin creates one ``Introspection`` and sets the abilities that it supports. All are optional:
``missing`` names the others with the reason. ``switch_off`` is the guard.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .latency_histogram import LatencyHistograms
from .request_table import MOST_ROWS, SORTS, RequestView, table
from .step_boundary import NotDone, StepBoundary
from .step_ring import MOST_ROWS as MOST_STEPS
from .step_ring import StepRing
from .tunables import NAME_LIMIT, REASON_LIMIT, clean

PROTOCOL = 2
ABILITIES = ("steps", "latencies", "requests", "abort")
MOST_IDS = 256
ID_LENGTH = 512
CACHE_S = 0.2  # other readers get the same answer for this long
CACHE_SIZE = 16
BOUNDARY_S = 5.0  # below the client's time limit

Aborted = tuple[Sequence[str], Sequence[str], Sequence[tuple[str, str]]]


class Introspection:
    """Internal data of one scheduler or one front end. A plugin sets the attributes.

    role: "engine" or "front_end". steps, latencies: filled by the engine's thread. view: its
    requests. abort: (ids, by, reason) -> (aborted, ended before, refused with reasons), called on
    the engine's thread. boundary: runs work on the engine's thread between two steps (or an object
    with the same ``call`` and ``close``, such as an event loop); None: any thread may do it.
    missing: why an ability or a column is missing, in words. restore: undo the patches.
    counts: totals that ``get`` reports by these names, such as ``refused_total``.
    """

    def __init__(
        self,
        log: logging.Logger,
        rank: int = 0,
        role: str = "engine",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rank = rank
        self.role = role
        self.steps: StepRing | None = None
        self.latencies: LatencyHistograms | None = None
        self.view: RequestView | None = None
        self.abort: Callable[[Sequence[str], str, str], Aborted] | None = None
        self.boundary: StepBoundary | None = None
        self.missing: dict[str, str] = {}
        self.restore: list[Callable[[], None]] = []
        self.counts: dict[str, Callable[[], int]] = {}
        self.off: str | None = None
        self._log = log
        self._clock = clock
        self._latency_answers = _AnswerCache(monotonic)
        self._request_answers = _AnswerCache(monotonic)
        self._seen: set[str] = set()

    def seen(self, name: str, known: bool, reason: str) -> None:
        """Record whether a figure was available. One that never was is missing, for this reason.

        For figures that only a request or a step can show. Thread-safe.
        """
        if name in self._seen:
            return
        if known:
            self._seen.add(name)
            self.missing.pop(name, None)
        elif name not in self.missing:
            self.missing[name] = reason

    @property
    def abilities(self) -> list[str]:
        """The present abilities, in the protocol's words."""
        if self.off is not None:
            return []
        parts = (self.steps, self.latencies, self.view, self.abort)
        return [name for name, part in zip(ABILITIES, parts, strict=True) if part is not None]

    def describe(self) -> dict[str, Any]:
        """The fields that ``get`` reports besides the options."""
        counts = {name: count() for name, count in self.counts.items()}
        about = {"role": self.role, "abilities": self.abilities, "missing": self._reasons()}
        return {**about, **counts}

    def _reasons(self) -> dict[str, str]:
        found = self.missing.copy().items()  # other threads add to it
        return {clean(k, NAME_LIMIT): clean(v, REASON_LIMIT) for k, v in found}

    def switch_off(self, error: Exception, where: str) -> None:
        """The guard: stop permanently, undo the patches, log one line. Never raises.

        For the ``except Exception`` of every hook. The engine continues without introspection.
        """
        if self.off is not None:
            return
        self.off = clean(
            f"{type(error).__name__} in llmtop's part of {where}: {error}", REASON_LIMIT
        )
        try:
            self.missing.update({name: self.off for name in ABILITIES})
            if self.boundary is not None:
                self.boundary.close(self.off)
            for undo in self.restore:
                self._try(undo)
            self._log.warning("llmtop: introspection is off: %s", self.off, exc_info=error)
        except Exception:
            pass

    def _try(self, undo: Callable[[], None]) -> None:
        try:
            undo()
        except Exception:
            self._log.exception("llmtop: could not restore a part of the engine")

    # Socket threads.

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to one request of protocol 2; None for an unknown op."""
        op = request.get("op")
        if op not in ABILITIES:
            return None
        if op not in self.abilities:
            reason = self.missing.get(op, "this engine's plugin does not have it")
            return _error(f"no {op} here: {clean(reason, REASON_LIMIT)}", missing=op)
        try:
            fields = getattr(self, f"_{op}")(request)
        except (NotDone, _InvalidRequest) as error:
            return _error(clean(str(error), REASON_LIMIT))
        about = {"ok": True, "protocol": PROTOCOL, "rank": self.rank}
        return {**about, "missing": self._reasons(), **fields}

    def _steps(self, request: Mapping[str, Any]) -> dict[str, Any]:
        since, limit = request.get("since"), request.get("limit", MOST_STEPS)
        if since is not None and not _is_count(since):
            raise _InvalidRequest("since must be a sequence number or null")
        if not _is_count(limit):
            raise _InvalidRequest("limit must be a whole number")
        assert self.steps is not None
        return {"now": self._clock(), **self.steps.read(since, limit)}

    def _latencies(self, request: Mapping[str, Any]) -> dict[str, Any]:
        histograms = self.latencies
        assert histograms is not None
        boot = self.steps.boot if self.steps is not None else None
        return self._latency_answers.get(
            "latencies", lambda: {"now": self._clock(), "boot": boot, **histograms.read()}
        )

    def _requests(self, request: Mapping[str, Any]) -> dict[str, Any]:
        sort, limit = request.get("sort", "age"), request.get("limit", MOST_ROWS)
        ids = request.get("ids")
        if sort not in SORTS:
            raise _InvalidRequest(f"sort must be one of {', '.join(SORTS)}")
        if not _is_count(limit):
            raise _InvalidRequest("limit must be a whole number")
        if ids is not None:
            ids = _ids(ids, MOST_ROWS)
        key = (sort, None if ids is None else tuple(ids))
        fields = self._request_answers.get(
            key, lambda: self._at_boundary(lambda: self._table(sort, ids))
        )
        return {**fields, "requests": fields["requests"][:limit]}

    def _table(self, sort: str, ids: list[str] | None) -> dict[str, Any]:
        assert self.view is not None
        step = self.steps.last if self.steps is not None else None
        return table(self.view, self._clock(), step, sort, MOST_ROWS, ids)

    def _abort(self, request: Mapping[str, Any]) -> dict[str, Any]:
        ids, by, reason = (request.get(name, "") for name in ("ids", "by", "reason"))
        if not isinstance(by, str) or not isinstance(reason, str):
            raise _InvalidRequest("by and reason must be text")
        ids = _ids(ids, MOST_IDS)
        by, reason = clean(by, NAME_LIMIT) or "an unknown user", clean(reason, REASON_LIMIT)
        abort = self.abort
        assert abort is not None
        aborted, before, refused = self._at_boundary(lambda: abort(ids, by, reason))
        self._request_answers.forget()  # the next answer must not contain them
        self._log.info(
            "llmtop: %d requests aborted, requested by %s%s",
            len(aborted),
            by,
            f" ({reason})" if reason else "",
        )
        return {
            "aborted": list(aborted),
            "ended_before": list(before),
            "refused": [{"id": ident, "reason": why} for ident, why in refused],
        }

    def _at_boundary(self, work: Callable[[], Any]) -> Any:
        return work() if self.boundary is None else self.boundary.call(work, BOUNDARY_S)


class _InvalidRequest(Exception):
    """Why a request is invalid, in words."""


class _AnswerCache:
    """Answers shared by several readers: the first reader creates one, the others wait for it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[Any, tuple[float, dict[str, Any] | NotDone]] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Recreate the next answers. Does not wait."""
        self._kept.clear()

    def get(self, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer for ``key``, new or recent. Raises NotDone, as ``make`` does."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or self._monotonic() - kept[0] >= CACHE_S:
                if len(self._kept) >= CACHE_SIZE:
                    self._kept.clear()
                try:
                    made: dict[str, Any] | NotDone = make()
                except NotDone as error:
                    made = error
                kept = self._kept[key] = (self._monotonic(), made)
        if isinstance(kept[1], NotDone):
            raise kept[1]
        return kept[1]


def _ids(value: object, most: int) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise _InvalidRequest(f"ids must be a list of 1 to {most} ids")
    if not all(isinstance(ident, str) and 0 < len(ident) <= ID_LENGTH for ident in value):
        raise _InvalidRequest("an id must be text")
    return list(dict.fromkeys(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _error(text: str, **more: str) -> dict[str, Any]:
    return {"ok": False, "protocol": PROTOCOL, "error": text, **more}
