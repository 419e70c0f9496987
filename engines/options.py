"""Engine options: what each one is, what it is now, and how a change to it applies."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

OptionValue = int | float | bool | str | None


class Applies(StrEnum):
    """When a new value takes effect."""

    LIVE = "live"
    LIVE_UP_TO_LAUNCH = "live, up to the launch value"
    DRAINS = "drains"  # takes effect as running requests finish
    RESTART = "restart"


class Outcome(StrEnum):
    """What the engine answered to a change."""

    APPLIED = "applied"
    PENDING = "pending"  # accepted; takes effect at the engine's next step
    REFUSED = "refused"


class OptionSpec(Struct, frozen=True):
    """An option as an adapter's table describes it: the engine's own name and flag."""

    name: str
    flag: str
    summary: str
    applies: Applies
    kind: type[int] | type[float] | type[bool] | type[str]
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: OptionValue = None  # None: the engine decides, or not known


class Option(Struct, frozen=True):
    """An option of one running engine.

    value: in force now. launch: what it was started with. minimum, maximum: what it takes now.
    applies: how a change applies on this very engine (speculation that was not armed at launch
    needs a restart, whatever the table says). pending: accepted, not yet in force.
    """

    spec: OptionSpec
    value: OptionValue
    launch: OptionValue
    minimum: float | None
    maximum: float | None
    applies: Applies
    pending: OptionValue = None

    @property
    def name(self) -> str:
        """The engine's own name for it."""
        return self.spec.name


class Change(Struct, frozen=True):
    """One option change and what came of it.

    ack_ms: from sending the change to the engine's answer. evicted: running requests that were put
    back into the queue for it. by: who asked, as ``user@terminal``. time: unix seconds.
    """

    option: str
    before: OptionValue
    after: OptionValue
    outcome: Outcome
    reason: str | None = None
    ack_ms: float | None = None
    evicted: int = 0
    by: str = ""
    time: float | None = None
