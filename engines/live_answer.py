"""What an engine's live-option socket answers, read without believing any of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec import Struct, field

from llmtop import LlmtopError
from llmtop.engines.options import Applies, Change, Outcome

TEXT_LIMIT = 500

Told = TypeVar("Told")


class LiveError(LlmtopError):
    """The live-option socket is gone, silent, or talks nonsense."""


class LiveOption(Struct, frozen=True):
    """One option as the engine tells it. note: what an operator should know of it, or ""."""

    value: int
    launch: int
    minimum: int
    maximum: int
    applies: Applies
    pending: int | None = None
    note: str = ""


class LiveState(Struct, frozen=True):
    """What one engine can change now, and what has been changed.

    running, waiting: requests, None when the engine could not count them. evicted_total: requests
    put back into the queue by changes. history: oldest first, whoever asked. disabled: why the
    engine's guard switched live options off, None while they are on.
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


def nonsense(what: str) -> LiveError:
    """The error for an answer that makes no sense."""
    return LiveError(
        f"the engine's live-option socket talks nonsense ({what})",
        "is something else listening there, or another version of llmtop's plugin?",
    )


def understood(read: Callable[[Any], Told], asked: Any) -> Told:
    """``read(asked)``, with LiveError for whatever is not as the protocol says."""
    try:
        return read(asked)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise nonsense("an answer that is not in the protocol") from None


def object_of(line: bytes) -> Mapping[str, Any]:
    """The JSON object on a line."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def state_of(answer: Mapping[str, Any]) -> LiveState:
    """The answer to ``get``."""
    disabled = answer.get("disabled")
    return LiveState(
        engine=printable(answer["engine"]),
        version=printable(answer["version"]),
        pid=_count_or_none(answer.get("pid")),
        options={printable(name): _option(told) for name, told in answer["options"].items()},
        running=_count_or_none(answer.get("running")),
        waiting=_count_or_none(answer.get("waiting")),
        evicted_total=_count(answer["evicted_total"]),
        history=tuple(_past(told) for told in _list(answer["history"])),
        disabled=None if disabled is None else printable(disabled),
    )


def _option(told: Mapping[str, Any]) -> LiveOption:
    try:
        applies = Applies(told["applies"])
    except ValueError:  # newer words than ours
        applies = Applies.LIVE
    note = told.get("note")
    return LiveOption(
        value=_count(told["value"]),
        launch=_count(told["launch"]),
        minimum=_count(told["minimum"]),
        maximum=_count(told["maximum"]),
        applies=applies,
        pending=_count_or_none(told.get("pending")),
        note="" if note is None else printable(note),
    )


def _past(told: Mapping[str, Any]) -> Change:
    reason = told.get("reason")
    return Change(
        option=printable(told["option"]),
        before=_count_or_none(told["from"]),
        after=_count_or_none(told["to"]),
        outcome=Outcome(told["outcome"]),
        reason=None if reason is None else printable(reason),
        evicted=_count(told.get("evicted", 0)),
        by=printable(told["by"]),
        time=_moment(told["time"]),
    )


def changes_of(
    answer: Mapping[str, Any], asked: tuple[str, ...], by: str, time: float, ack_ms: float
) -> tuple[Change, ...]:
    """The answer to ``set``: what became of each option that was asked for, in that order."""
    told = {item["option"]: item for item in _list(answer["changes"])}
    # Eviction is max_num_seqs' doing. An engine that tells one number for the whole request has it
    # put there, or else with the first.
    evicting = "max_num_seqs" if "max_num_seqs" in asked else asked[0]
    total = _count(answer.get("evicted", 0))
    changes = []
    for option in asked:
        item = told[option]
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


def printable(value: object) -> str:
    """Text from outside, bounded, with nothing in it that a terminal would act upon."""
    if not isinstance(value, str):
        raise ValueError("not text")
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:TEXT_LIMIT]
    )


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
