"""What would come of changes to an engine: which it takes as it runs, and which need a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmtop.engines.core.options import Change, Option, OptionValue
from llmtop.engines.tuning import resolution


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """live: to be asked of the running engine. restart: to be launched with; where that is not
    empty the rest is in there too, since a start settles all at once. refused: what neither can do.
    settled: what is so already.
    """

    live: Mapping[str, OptionValue] = field(default_factory=dict)
    restart: Mapping[str, OptionValue] = field(default_factory=dict)
    refused: tuple[Change, ...] = ()
    settled: tuple[str, ...] = ()


def propose(
    options: Sequence[Option], wanted: Mapping[str, OptionValue], by: str = ""
) -> ChangePlan:
    """Sort changes when a restart is allowed. UsageError for an option that there is not."""
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
        elif why := resolution.unfit(option.spec, value):
            refused.append(resolution.refused(option, value, why, by))
        else:
            restart[name] = value
    if restart:
        restart = {name: wanted[name] for name in wanted if name in restart or name in live}
        live = {}
    return ChangePlan(live, restart, tuple(refused), tuple(settled))
