"""An engine's options as they stand: the adapter's table, its command line, its own live answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from llmtop import UsageError
from llmtop.engines.live import LiveState
from llmtop.engines.options import Applies, Change, Option, OptionSpec, OptionValue, Outcome

WORDS_ON = {"on", "true", "yes", "1"}
WORDS_OFF = {"off", "false", "no", "0"}


def assemble(
    table: Sequence[OptionSpec],
    launch: Mapping[str, OptionValue],
    live: LiveState | None,
    *,
    known: bool = True,
) -> tuple[Option, ...]:
    """Lay what the engine says live over what it was launched with.

    An option that the table calls live, but that this engine does not offer on its socket, applies
    by restart here: the socket decides, not the table. known: whether ``launch`` is all that it was
    launched with; else what is not in it may have any value, not just the default.
    """
    found = []
    for spec in table:
        now = live.options.get(spec.name) if live and live.disabled is None else None
        if now is not None:
            found.append(
                Option(
                    spec=spec,
                    value=now.value,
                    launch=now.launch,
                    minimum=now.minimum,
                    maximum=now.maximum,
                    applies=now.applies,
                    pending=now.pending,
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
    return tuple(found)


def find(options: Sequence[Option], name: str) -> Option:
    """The option called ``name``; a UsageError that names what is near when there is none."""
    for option in options:
        if option.name == name:
            return option
    names = [option.name for option in options]
    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"there is no option {name!r}",
        f"did you mean {near[0]}?" if near else "the options are " + ", ".join(names),
    )


def parse(option: Option, text: str) -> OptionValue:
    """Read a value typed by a person. UsageError when it is not of the option's kind."""
    kind = option.spec.kind
    word = text.strip().lower()
    if kind is bool:
        if word in WORDS_ON | WORDS_OFF:
            return word in WORDS_ON
        raise UsageError(f"{option.name} is on or off, not {text!r}")
    if kind is int:
        # Speculation is counted in draft tokens; people say off and on.
        if word == "off" and option.minimum == 0:
            return 0
        if word == "on" and option.minimum == 0 and isinstance(option.launch, int):
            return option.launch
        try:
            return int(word.replace(",", "").replace("_", ""))
        except ValueError:
            raise UsageError(f"{option.name} takes a whole number, not {text!r}") from None
    if kind is float:
        try:
            return float(word)
        except ValueError:
            raise UsageError(f"{option.name} takes a number, not {text!r}") from None
    if option.spec.choices and text not in option.spec.choices:
        raise UsageError(
            f"{option.name} cannot be {text!r}", "it takes " + ", ".join(option.spec.choices)
        )
    return text


def refusal(option: Option, value: OptionValue) -> str | None:
    """Why a change cannot be asked of the engine as it runs, in words; None when it can."""
    if option.applies is Applies.RESTART:
        return f"{option.name} takes effect only at a restart; --restart does that"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = option.minimum, option.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            span = f"{_plain(low)} to {_plain(high)}"
            why = ", the launch value" if high == option.launch else ""
            return f"{value} is out of range: this engine takes {span}{why}"
    return None


def unfit(spec: OptionSpec, value: OptionValue) -> str | None:
    """Why a value cannot even be launched with, in words; None when the engine is to be asked."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = spec.minimum, spec.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{value} is out of range: {spec.name} takes {_plain(low)} to {_plain(high)}"
    return None


def refused(option: Option, value: OptionValue, reason: str, by: str = "") -> Change:
    """A change that was not even sent, as an outcome."""
    return Change(
        option=option.name,
        before=option.value,
        after=value,
        outcome=Outcome.REFUSED,
        reason=reason,
        by=by,
    )


def _plain(number: float | None) -> str:
    return "any" if number is None else f"{number:,g}" if number < 1e15 else str(number)
