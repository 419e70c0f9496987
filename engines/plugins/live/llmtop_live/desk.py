"""Where socket threads hand changes in and the engine's own thread picks them up.

Only plain numbers and strings cross, and only here, under one lock that nobody holds while doing
anything slow. The engine's thread looks at one attribute, ``Desk.attention``, and comes in only
when it is set.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 1
HISTORY = 50  # with the limits below an answer stays under the protocol's 64 KiB
NAME_LIMIT = 64
REASON_LIMIT = 200


def clean(text: str, limit: int) -> str:
    """The text as one printable line of at most ``limit`` characters: it will reach terminals."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])


@dataclass
class Dial:
    """One option that this engine can change while it runs. value is what is in force.

    cannot_evict: why running requests cannot be put back for it, None when they can, or when the
    option has nothing to do with running requests. note: what an operator should know besides.
    """

    name: str
    launch: int
    minimum: int
    maximum: int
    applies: str
    note: str | None = None
    cannot_evict: str | None = None
    value: int = field(init=False)

    def __post_init__(self) -> None:
        self.value = self.launch

    def objection(self, to: object, evict: bool) -> str | None:
        """Why this value is refused, or None."""
        if not isinstance(to, int) or isinstance(to, bool):
            return "must be a whole number"
        if not self.minimum <= to <= self.maximum:
            top = "the launch value" if self.maximum == self.launch else "what the engine can hold"
            return f"must lie between {self.minimum} and {self.maximum} ({top})"
        if evict and self.cannot_evict:
            return f"cannot evict: {self.cannot_evict}"
        return None


@dataclass(eq=False)
class Order:
    """A change that was accepted. The engine's thread sets evicted before it settles it."""

    dial: Dial
    to: int
    evict: bool
    by: str
    asked: float
    before: int
    outcome: str = "pending"
    reason: str | None = None
    evicted: int = 0

    def told(self) -> dict[str, Any]:
        """As an answer to ``set`` tells it."""
        return {
            "option": self.dial.name,
            "from": self.before,
            "to": self.to,
            "outcome": self.outcome,
            "reason": self.reason,
            "evicted": self.evicted,
        }


class Desk:
    """The options of one engine, the changes waiting for its next step, and what became of others.

    counts: (running, waiting) requests as of now, called from socket threads.
    """

    def __init__(
        self,
        engine: str,
        version: str,
        pid: int,
        dials: Sequence[Dial],
        counts: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.attention = False
        self.disabled: str | None = None
        self._about = {"engine": engine, "version": version, "pid": pid}
        self._dials = {dial.name: dial for dial in dials}
        self._counts = counts
        self._clock = clock
        self._orders: dict[str, Order] = {}
        self._history: deque[Order] = deque(maxlen=HISTORY)
        self._evicted = 0
        self._changed = threading.Condition()

    # Socket threads.

    def state(self) -> dict[str, Any]:
        """All that ``get`` tells."""
        try:
            running, waiting = self._counts()
        except Exception:  # the engine's lists, read without its lock
            running = waiting = None  # type: ignore[assignment]
        with self._changed:
            options = {
                dial.name: {
                    "value": dial.value,
                    "launch": dial.launch,
                    "minimum": dial.minimum,
                    "maximum": dial.maximum,
                    "applies": dial.applies,
                    "pending": self._orders[dial.name].to if dial.name in self._orders else None,
                    "note": dial.note,
                }
                for dial in self._dials.values()
            }
            history = [{"time": o.asked, "by": o.by, **o.told()} for o in self._history]
            return {
                **self._about,
                "options": options,
                "running": running,
                "waiting": waiting,
                "evicted_total": self._evicted,
                "history": history,
                "disabled": self.disabled,
            }

    def submit(
        self, changes: dict[str, Any], evict: bool, by: str, wait_s: float
    ) -> list[dict[str, Any]]:
        """Hand changes in and wait for the engine's step, at most ``wait_s``; what came of each."""
        told: list[dict[str, Any] | Order] = []
        with self._changed:
            for name, to in changes.items():
                told.append(self._accept(name, to, evict, by))
            self.attention = self.attention or bool(self._orders)
            mine = [order for order in told if isinstance(order, Order)]
            self._changed.wait_for(lambda: all(o.outcome != "pending" for o in mine), wait_s)
            return [item.told() if isinstance(item, Order) else item for item in told]

    def _accept(self, name: str, to: Any, evict: bool, by: str) -> dict[str, Any] | Order:
        dial = self._dials.get(name)
        if dial is None:
            known = ", ".join(self._dials) or "none"
            objection: str | None = f"not a live option of this engine; it has: {known}"
        elif self.disabled is not None:
            objection = f"live options are switched off: {self.disabled}"
        else:
            objection = dial.objection(to, evict)
        if objection is not None or dial is None:
            return {
                "option": clean(name, NAME_LIMIT),
                "from": dial.value if dial else None,
                "to": to if type(to) is int and abs(to) < 1 << 53 else None,
                "outcome": "refused",
                "reason": objection,
                "evicted": 0,
            }
        order = Order(dial, to, evict, clean(by, NAME_LIMIT), self._clock(), dial.value)
        earlier = self._orders.pop(name, None)
        if earlier is not None:
            self._refuse(earlier, "replaced by a later change before the engine's next step")
        self._orders[name] = order
        self._history.append(order)
        return order

    # The engine's thread.

    def take(self) -> list[Order]:
        """The changes that wait, oldest first; they are the caller's to settle."""
        with self._changed:
            orders = list(self._orders.values())
            self._orders.clear()
            return orders

    def settle(self, orders: Sequence[Order], again: bool) -> None:
        """These are in force now. again: the engine's thread wants the next step's call too."""
        with self._changed:
            for order in orders:
                order.before, order.dial.value = order.dial.value, order.to
                order.outcome = "applied"
                self._evicted += order.evicted
            self.attention = again or bool(self._orders)
            self._changed.notify_all()

    def disable(self, reason: str, orders: Sequence[Order] = ()) -> None:
        """Switch off for good: launch values in force, ``orders`` and what waits refused."""
        with self._changed:
            self.disabled = clean(reason, REASON_LIMIT)
            for dial in self._dials.values():
                dial.value = dial.launch
            for order in (*orders, *self._orders.values()):
                self._refuse(order, self.disabled)
            self._orders.clear()
            self.attention = False
            self._changed.notify_all()

    def _refuse(self, order: Order, reason: str) -> None:
        order.outcome, order.reason = "refused", reason
        self._evicted += order.evicted  # it may have failed half way
        self._changed.notify_all()
