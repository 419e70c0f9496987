"""An engine's present options, from the adapter's table, the command line and the live answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from llmtop import UsageError
from llmtop.engines.core.options import (
    BATCH_LIMITS,
    Applies,
    Change,
    Option,
    OptionSpec,
    OptionValue,
    Outcome,
    RankValue,
)
from llmtop.engines.tuning.live_client import LiveOption, LiveState
from llmtop.values import replace

_Named = TypeVar("_Named", Option, OptionSpec)
WORDS_ON = {"on", "true", "yes", "1"}
WORDS_OFF = {"off", "false", "no", "0"}


def assemble(
    table: Sequence[OptionSpec],
    launch: Mapping[str, OptionValue],
    live: LiveState | None,
    *,
    known: bool = True,
    silent: str = "",
) -> tuple[Option, ...]:
    """Combine the launch values with the engine's live answer.

    An option that the table calls live, but that this engine does not offer on its socket, needs a
    restart: the socket decides, not the table. known: whether ``launch`` is complete; else a
    missing option may have any value, not only the default. silent: why the engine's live interface
    does not answer now; the values of live options are then unknown, because they may have changed.
    """
    found = []
    for spec in table:
        now = live.options.get(spec.name) if live and live.disabled is None else None
        if live is not None and now is not None:
            found.append(
                Option(
                    spec=spec,
                    value=now.named(now.value),
                    launch=now.named(now.launch),
                    minimum=_bound(now, now.minimum),
                    maximum=_bound(now, now.maximum),
                    applies=now.applies,
                    pending=now.named(now.pending),
                    note="; ".join(filter(None, (now.note, draining_words(live, spec.name)))),
                    ranks=tuple(_named(now, one) for one in now.ranks),
                )
            )
            continue
        value = launch.get(spec.name, spec.default if known else None)
        found.append(
            Option(
                spec=spec,
                value=value,
                launch=value,
                minimum=spec.minimum,
                maximum=spec.maximum,
                applies=Applies.RESTART,
            )
        )
        if spec.applies is not Applies.RESTART and silent:
            found[-1] = replace(found[-1], value=None, applies=spec.applies, obstacle=silent)
    return tuple(found)


def _bound(option: LiveOption, value: int) -> float | None:
    if option.choices:
        return None
    return value if option.parts == 1 else value / option.parts


def _named(option: LiveOption, one: RankValue) -> RankValue:
    return RankValue(one.rank, option.named(one.value), option.named(one.pending))


def draining_words(live: LiveState, name: str) -> str:
    """The number of requests still running above a lowered batch limit, in words; "" for none."""
    option = live.options.get(name)
    if option is None or name not in BATCH_LIMITS:
        return ""
    running = {one.rank: one.running or 0 for one in live.ranks}
    above = [
        f"{running[one.rank]:,} on rank {one.rank}"
        for one in option.ranks
        if isinstance(one.value, int) and running.get(one.rank, 0) > one.value
    ]
    if not live.ranks and (live.running or 0) > option.value:
        above = [f"{live.running:,}"]
    return f"still running: {', '.join(above)}; requests above the limit finish" if above else ""


def drains(change: Change) -> bool:
    """Whether a change may leave requests running above the limit that it lowered."""
    lowered = (one.before for one in change.ranks) if change.ranks else (change.before,)
    return (
        change.option in BATCH_LIMITS
        and change.outcome is not Outcome.REFUSED
        and isinstance(change.after, int)
        and any(isinstance(before, int) and before > change.after for before in lowered)
    )


def find(options: Sequence[_Named], name: str) -> _Named:
    """The option ``name``. UsageError if there is none; it suggests a similar name."""
    for option in options:
        if option.name == name:
            return option
    names = [option.name for option in options]
    import difflib  # the recorder never needs it

    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"there is no option {name!r}",
        f"did you mean {near[0]}?" if near else "the options are " + ", ".join(names),
    )


def parse(option: Option, text: str) -> OptionValue:
    """Parse a typed value. UsageError if it does not have the option's type."""
    kind = option.spec.kind
    word = text.strip().lower()
    if kind is bool:
        if word in WORDS_ON | WORDS_OFF:
            return word in WORDS_ON
        raise UsageError(f"{option.name} is on or off, not {text!r}")
    if kind is int:
        # 0 draft tokens means no speculation, so users write off and on.
        if word == "off" and option.minimum == 0:
            return 0
        if word == "on" and option.minimum == 0 and isinstance(option.launch, int):
            return option.launch
        try:
            if not word.isascii():  # digits of other scripts
                raise ValueError
            return int(word.replace(",", "").replace("_", ""))
        except ValueError:
            raise UsageError(f"{option.name} takes a whole number, not {text!r}") from None
    if kind is float:
        try:
            if not word.isascii():
                raise ValueError
            return float(word)
        except ValueError:
            raise UsageError(f"{option.name} takes a number, not {text!r}") from None
    if option.spec.choices and text not in option.spec.choices:
        raise UsageError(
            f"{option.name} cannot be {text!r}", "it takes " + ", ".join(option.spec.choices)
        )
    return text


def refusal(option: Option, value: OptionValue) -> str | None:
    """Why a running engine cannot make a change, in words; None if it can."""
    if option.obstacle:
        return option.obstacle
    if option.applies is Applies.RESTART:
        return f"{option.name} takes effect only at a restart; --restart does that"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = option.minimum, option.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            span = f"{_plain(low)} to {_plain(high)}"
            why = ", the launch value" if high == option.launch else ""
            return f"{value} is out of range: this engine takes {span}{why}"
    return None


def launch_refusal(spec: OptionSpec, value: OptionValue) -> str | None:
    """Why a launch with a value is impossible, in words; None if the engine decides."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = spec.minimum, spec.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{value} is out of range: {spec.name} takes {_plain(low)} to {_plain(high)}"
    return None


def refused_change(option: Option, value: OptionValue, reason: str, by: str = "") -> Change:
    """The outcome of a change that llmtop refused to send."""
    return Change(
        option=option.name,
        before=option.value,
        after=value,
        outcome=Outcome.REFUSED,
        reason=reason,
        by=by,
        note=option.note,
    )


def _plain(number: float | None) -> str:
    return "any" if number is None else f"{number:,g}" if number < 1e15 else str(number)
