"""Splits changes of an engine into live changes and changes that need a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from llmtop.engines.core.options import Change, Option, OptionValue
from llmtop.engines.tuning import resolution


class ChangePlan(Struct, frozen=True):
    """live: changes of the running engine. restart: new launch values; if not empty, it includes
    the live changes too, since a start applies all. refused: changes that are not possible.
    settled: values already in force.
    """

    live: Mapping[str, OptionValue] = field(default_factory=dict)
    restart: Mapping[str, OptionValue] = field(default_factory=dict)
    refused: tuple[Change, ...] = ()
    settled: tuple[str, ...] = ()


def propose(
    options: Sequence[Option], wanted: Mapping[str, OptionValue], by: str = ""
) -> ChangePlan:
    """Plan changes when a restart is allowed. UsageError for an unknown option."""
    live: dict[str, OptionValue] = {}
    restart: dict[str, OptionValue] = {}
    refused: list[Change] = []
    settled: list[str] = []
    for name, value in wanted.items():
        option = resolution.find(options, name)
        if option.is_everywhere(value):
            settled.append(name)
        elif resolution.refusal(option, value) is None:
            live[name] = value
        elif why := resolution.launch_refusal(option.spec, value):
            refused.append(resolution.refused_change(option, value, why, by))
        else:
            restart[name] = value
    if restart:
        restart = {name: wanted[name] for name in wanted if name in restart or name in live}
        live = {}
    return ChangePlan(live, restart, tuple(refused), tuple(settled))
