"""Answers of an engine's live-option socket. Each field is validated: the sender is not trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from llmtop import LlmtopError
from llmtop.engines.core.options import Applies, Change, OptionValue, Outcome, RankValue
from llmtop.printable import printable
from llmtop.values import replace

TEXT_LIMIT = 500
CHOICES_LIMIT = 32

Told = TypeVar("Told")


class LiveError(LlmtopError):
    """The live-option socket is gone, does not answer, or sends invalid data."""


class LiveGone(LiveError):
    """No process listens on the live-option socket, or there is no socket."""


class LiveOption(Struct, frozen=True):
    """One option as the engine reports it.

    note: for the operator, or "". ranks: its value on each data-parallel rank, () with one
    scheduler. choices: the names of the values 0, 1, ... of a choice. parts: the divisor of the
    reported numbers where the option is not a whole number (100: hundredths).
    """

    value: int
    launch: int
    minimum: int
    maximum: int
    applies: Applies
    pending: int | None = None
    note: str = ""
    ranks: tuple[RankValue, ...] = ()
    choices: tuple[str, ...] = ()
    parts: int = 1

    def named(self, value: OptionValue) -> OptionValue:
        """The name of a choice's value, else the value itself."""
        if self.parts > 1:
            return value / self.parts if isinstance(value, int) else value
        known = isinstance(value, int) and 0 <= value < len(self.choices)
        return self.choices[int(value)] if known and value is not None else value

    def number(self, value: OptionValue) -> int | None:
        """The number that stands for a value in the protocol; None for an invalid value."""
        if isinstance(value, str):
            return self.choices.index(value) if value in self.choices else None
        if self.parts > 1 and isinstance(value, int | float):
            return round(value * self.parts)
        return value if isinstance(value, int) else None


class RankState(Struct, frozen=True):
    """One data-parallel rank. trouble: why it does not answer, "" if it answers."""

    rank: int
    pid: int | None = None
    running: int | None = None
    waiting: int | None = None
    disabled: str | None = None
    trouble: str = ""


class LiveState(Struct, frozen=True):
    """The options that one engine can change now, and the changes so far.

    running, waiting: requests, None when the engine could not count them. evicted_total: requests
    that changes put back into the queue. history: oldest first, from all clients. disabled: why the
    engine's guard switched live options off, None while they are on. ranks: each data-parallel
    rank, () with one scheduler. All other fields cover all ranks together.
    """

    engine: str
    version: str
    pid: int | None
    options: Mapping[str, LiveOption] = field(default_factory=dict)
    running: int | None = None
    waiting: int | None = None
    evicted_total: int = 0
    history: tuple[Change, ...] = ()
    disabled: str | None = None
    ranks: tuple[RankState, ...] = ()


def nonsense(what: str) -> LiveError:
    """The error for an invalid answer."""
    return LiveError(
        f"the engine's live-option socket sends invalid data ({what})",
        "is something else listening there, or another version of llmtop's plugin?",
    )


def understood(read: Callable[[Any], Told], asked: Any) -> Told:
    """``read(asked)``. Raises LiveError for an answer that violates the protocol."""
    try:
        return read(asked)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise nonsense("an answer that is not in the protocol") from None


def object_of(line: bytes) -> Mapping[str, Any]:
    """The JSON object on a line."""
    try:
        found = msgspec.json.decode(line)  # half the time of json: an answer has 60 KB a second
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def state_of(answer: Mapping[str, Any]) -> LiveState:
    """The answer to ``get``."""
    disabled = answer.get("disabled")
    options = {text_of(name): option_of(fields) for name, fields in answer["options"].items()}
    return LiveState(
        engine=text_of(answer["engine"]),
        version=text_of(answer["version"]),
        pid=_count_or_none(answer.get("pid")),
        options=options,
        running=_count_or_none(answer.get("running")),
        waiting=_count_or_none(answer.get("waiting")),
        evicted_total=_count(answer["evicted_total"]),
        history=tuple(
            named_change(past, options.get(past.option))
            for past in map(_past, _list(answer["history"]))
        ),
        disabled=None if disabled is None else text_of(disabled),
    )


def option_of(fields: Mapping[str, Any]) -> LiveOption:
    """One option of the answer to ``get``. ValueError and the like for what is not one."""
    try:
        applies = Applies(fields["applies"])
    except ValueError:  # a word of a newer protocol
        applies = Applies.LIVE
    note = fields.get("note")
    return LiveOption(
        value=_count(fields["value"]),
        launch=_count(fields["launch"]),
        minimum=_count(fields["minimum"]),
        maximum=_count(fields["maximum"]),
        applies=applies,
        pending=_count_or_none(fields.get("pending")),
        note="" if note is None else text_of(note),
        choices=tuple(text_of(name) for name in _list(fields.get("choices", []))[:CHOICES_LIMIT]),
        parts=max(_count(fields.get("parts", 1)), 1),
    )


def _past(fields: Mapping[str, Any]) -> Change:
    reason = fields.get("reason")
    return Change(
        option=text_of(fields["option"]),
        before=_count_or_none(fields["from"]),
        after=_count_or_none(fields["to"]),
        outcome=Outcome(fields["outcome"]),
        reason=None if reason is None else text_of(reason),
        evicted=_count(fields.get("evicted", 0)),
        by=text_of(fields["by"]),
        time=_moment(fields["time"]),
    )


def named_change(change: Change, option: LiveOption | None) -> Change:
    """A change with the values that the operator sees: names of choices, decimal numbers."""
    if option is None or not (option.choices or option.parts > 1):
        return change
    ranks = tuple(replace(one, before=option.named(one.before)) for one in change.ranks)
    before, after = option.named(change.before), option.named(change.after)
    return replace(change, before=before, after=after, ranks=ranks)


def changes_of(
    answer: Mapping[str, Any], asked: tuple[str, ...], by: str, time: float, ack_ms: float
) -> tuple[Change, ...]:
    """The answer to ``set``: one outcome for each requested option, in that order."""
    by_option = {item["option"]: item for item in _list(answer["changes"])}
    # max_num_seqs causes evictions. An engine reports one number for the whole request: it is
    # assigned to max_num_seqs, else to the first option.
    evicting = "max_num_seqs" if "max_num_seqs" in asked else asked[0]
    total = _count(answer.get("evicted", 0))
    changes = []
    for option in asked:
        item = by_option[option]
        change = _past({**item, "by": by, "time": time})
        evicted = change.evicted if "evicted" in item else total if option == evicting else 0
        changes.append(
            Change(
                option,
                change.before,
                change.after,
                change.outcome,
                change.reason,
                ack_ms,
                evicted,
                change.by,
                change.time,
            )
        )
    return tuple(changes)


def text_of(value: object) -> str:
    """A text of the engine, bounded and printable. Raises ValueError for another type."""
    if not isinstance(value, str):
        raise ValueError("not text")
    return printable(value, TEXT_LIMIT)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not a whole number")
    return value


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a moment")
    return float(value)
