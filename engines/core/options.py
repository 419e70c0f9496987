"""Engine options: their meaning, their present values, and how a change applies."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

OptionValue = int | float | bool | str | None

# The options of vLLM, SGLang and TensorRT-LLM that limit the requests and the tokens of one step.
BATCH_LIMITS = ("max_num_seqs", "max_running_requests", "max_batch_size")
TOKEN_BUDGETS = ("max_num_batched_tokens", "chunked_prefill_size", "max_num_tokens")


class Applies(StrEnum):
    """When a new value takes effect."""

    LIVE = "live"
    LIVE_UP_TO_LAUNCH = "live, up to the launch value"
    DRAINS = "drains"  # takes effect as running requests finish
    RESTART = "restart"


class Outcome(StrEnum):
    """The engine's answer to a change."""

    APPLIED = "applied"
    PENDING = "pending"  # accepted; takes effect at the engine's next step
    REFUSED = "refused"
    PARTIAL = "partial"  # some data-parallel ranks applied it, others did not


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
    default: OptionValue = None  # None: the engine decides, or unknown


class RankValue(Struct, frozen=True):
    """An option on one data-parallel rank. value: in force, None when the rank does not answer.
    pending: accepted, not yet in force."""

    rank: int
    value: OptionValue
    pending: OptionValue = None


class Option(Struct, frozen=True):
    """An option of one running engine.

    value: in force now, the lowest where data-parallel ranks differ. launch: the value at launch.
    minimum, maximum: the range that it accepts now.
    applies: how a change applies on this engine. It can differ from the table: speculation that was
    not armed at launch needs a restart. pending: accepted, not yet in force. note: for the
    operator, "" for none. obstacle: why the option cannot change now although the table calls it
    live, "" for none. ranks: the value on each data-parallel rank, () with one scheduler.
    """

    spec: OptionSpec
    value: OptionValue
    launch: OptionValue
    minimum: float | None
    maximum: float | None
    applies: Applies
    pending: OptionValue = None
    note: str = ""
    obstacle: str = ""
    ranks: tuple[RankValue, ...] = ()

    @property
    def name(self) -> str:
        """The engine's name of the option."""
        return self.spec.name

    def is_everywhere(self, value: OptionValue) -> bool:
        """Whether this value is in force on every rank and no other value is pending."""
        return (
            self.value == value
            and self.pending is None
            and all(one.value == value for one in self.ranks)
        )

    @property
    def total(self) -> int | None:
        """The sum over the ranks: the limit of the whole engine.

        None when the value is not a whole number, or a rank's value is unknown.
        """
        values = [one.value for one in self.ranks] or [self.value]
        known = [value for value in values if isinstance(value, int)]
        return sum(known) if len(known) == len(values) else None


class RankChange(Struct, frozen=True):
    """The outcome of a change on one data-parallel rank: None when the rank did not answer, with
    the reason in ``reason``."""

    rank: int
    before: OptionValue
    outcome: Outcome | None
    reason: str | None = None
    evicted: int = 0


class Change(Struct, frozen=True):
    """One option change and its outcome.

    ack_ms: from sending the change to the engine's answer. evicted: running requests that the
    change put back into the queue. by: who requested it, as ``user@terminal``. time: unix seconds.
    ranks: the outcome on each data-parallel rank, () with one scheduler. note: for the operator, ""
    for none.
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
    ranks: tuple[RankChange, ...] = ()
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether some part of the engine did not apply it."""
        return self.outcome in (Outcome.REFUSED, Outcome.PARTIAL)
