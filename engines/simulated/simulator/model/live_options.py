"""The live options: changes are requested at any time and applied between steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.values import replace

HISTORY = 50  # changes remembered
MOST_QUEUED = 1 << 16
ANY_TIME = "live"
UP_TO_LAUNCH = "live, up to the launch value"


class Entry(Struct):
    """One change in the history: outcome "pending" becomes "applied" or "refused"."""

    time: float
    by: str
    option: str
    before: int | None
    to: object
    outcome: str
    reason: str | None = None
    evicted: int = 0

    def as_history(self) -> dict[str, Any]:
        """The change in the form of the protocol's history."""
        fields = asdict(self)
        fields["from"] = fields.pop("before")
        return fields

    def as_answer(self) -> dict[str, Any]:
        """The change in the form of the ``set`` answer."""
        return {
            "option": self.option,
            "from": self.before,
            "to": self.to,
            "outcome": self.outcome,
            "reason": self.reason,
        }


class Ticket(Struct):
    """One ``set`` in progress. settled is called once, when none of its entries is pending."""

    entries: list[Entry]
    evict: bool
    evicted: int = 0
    settled: Callable[[], None] = field(default=lambda: None)

    @property
    def pending(self) -> bool:
        """Whether an entry waits for a step."""
        return any(entry.outcome == "pending" for entry in self.entries)


class LiveOptions:
    """Accepts changes, checks them, and applies them before a step, under a guard.

    The guard: if applying a change fails, the launch values are restored, ``disabled`` keeps the
    reason, and later changes are refused. The engine continues.
    """

    def __init__(self, scheduler: Scheduler, wall: Callable[[], float] = time.time) -> None:
        self._scheduler = scheduler
        self._wall = wall
        self.launch = scheduler.limits
        self.disabled: str | None = None
        self.history: deque[Entry] = deque(maxlen=HISTORY)
        self._tickets: list[Ticket] = []
        self.wake: Callable[[], None] = lambda: None  # makes an idle engine apply changes
        drafts = scheduler.limits.num_speculative_tokens
        self.minimum = {"max_num_seqs": 1, "max_num_batched_tokens": 1 + drafts}
        if scheduler.speculation is not None:
            self.minimum["num_speculative_tokens"] = 0
        self.maximum = {name: getattr(self.launch, name) for name in self.minimum}
        self.minimum["max_queued_requests"], self.maximum["max_queued_requests"] = 0, MOST_QUEUED

    def describe(self) -> dict[str, dict[str, Any]]:
        """The options in the form of the protocol's ``get``."""
        pending = self._pending()
        return {
            name: {
                "value": getattr(self._scheduler.limits, name),
                "launch": getattr(self.launch, name),
                "minimum": minimum,
                "maximum": self.maximum[name],
                "applies": ANY_TIME if name == "max_queued_requests" else UP_TO_LAUNCH,
                "pending": pending[name].to if name in pending else None,
            }
            for name, minimum in self.minimum.items()
        }

    def ask(self, changes: Mapping[str, object], evict: bool, by: str) -> Ticket:
        """Accept or refuse each change; the accepted ones wait for the next step."""
        entries = [self._check(option, value, by) for option, value in changes.items()]
        for entry in entries:
            if entry.outcome == "pending" and (older := self._pending().get(entry.option)):
                self._refuse(older, "replaced by a later change before the engine stepped")
        self.history.extend(entries)
        ticket = Ticket(entries, evict)
        if ticket.pending:
            self._tickets.append(ticket)
            self.wake()
        return ticket

    def apply(self) -> None:
        """Apply the pending changes. Called between steps; never raises."""
        if not self._tickets:
            return
        tickets, self._tickets = self._tickets, []
        try:
            for ticket in tickets:
                self._apply(ticket)
        except Exception as error:  # the guard: see the class
            self._scheduler.limits = self.launch
            self.disabled = f"{type(error).__name__}: {error}"
            for ticket in tickets:
                for entry in ticket.entries:
                    self._refuse(entry, f"switched off after an error: {self.disabled}")
        for ticket in tickets:
            ticket.settled()

    def _apply(self, ticket: Ticket) -> None:
        pending = [entry for entry in ticket.entries if entry.outcome == "pending"]
        if not pending:
            return
        limits: Limits = self._scheduler.limits
        for entry in pending:
            changes: dict[str, Any] = {entry.option: entry.to}
            limits = replace(limits, **changes)
        self._scheduler.limits = limits
        for entry in pending:
            if entry.option == "max_num_seqs" and ticket.evict:
                entry.evicted = ticket.evicted = self._scheduler.evict()
            entry.outcome = "applied"

    def _pending(self) -> dict[str, Entry]:
        entries = (entry for ticket in self._tickets for entry in ticket.entries)
        return {entry.option: entry for entry in entries if entry.outcome == "pending"}

    def _refuse(self, entry: Entry, reason: str) -> None:
        if entry.outcome == "pending":
            entry.outcome, entry.reason = "refused", reason

    def _check(self, option: str, value: object, by: str) -> Entry:
        before = getattr(self._scheduler.limits, option) if option in self.minimum else None
        entry = Entry(self._wall(), by, option[:64], before, _bounded(value), "pending")
        if self.disabled is not None:
            self._refuse(entry, f"live options are switched off: {self.disabled}")
        elif option not in self.minimum:
            known = ", ".join(self.minimum)
            self._refuse(entry, f"not an option that this engine can change live ({known})")
        elif not isinstance(value, int) or isinstance(value, bool):
            self._refuse(entry, "not a whole number")
        elif not self.minimum[option] <= value <= self.maximum[option]:
            bounds = f"{self.minimum[option]}..{self.maximum[option]}"
            self._refuse(entry, f"not within {bounds}")
        return entry


def _bounded(value: object) -> object:
    """A bounded value for the history: a wrong request may contain anything."""
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return repr(value)[:80]
