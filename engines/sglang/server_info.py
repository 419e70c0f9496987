"""What SGLang's ``/server_info`` reports of its live options, on each data-parallel rank.

Source: SGLang 0.5.12 to 0.5.23, managers/scheduler.py, from 0.5.22
scheduler_components/internal_state.py. A request goes to all ranks (data_parallel_controller.py,
``send_control_message``), and their answers are listed in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtop.engines.core.live_protocol import LiveOption, option_of, text_of
from llmtop.engines.core.options import Applies, RankValue
from llmtop.engines.tuning.rank_merge import difference_words
from llmtop.values import replace

CAP = "max_running_requests"
# Limits admission also without pipeline parallelism, and is the only one of ours that every
# version takes. The others are sent as they are, for the version that takes them.
CAP_KEY = "pp_max_micro_batch_size"
OTHERS = (
    *("chunked_prefill_size", "max_prefill_tokens"),
    *("schedule_policy", "schedule_conservativeness"),
)
RANK_KEY = "llmtop_rank"
DESCRIBED_KEY = "llmtop_options"  # what our plugin says of them besides their values


class ServerInfo:
    """What ``/server_info`` reports, as far as it concerns us. Values are for each rank."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.version = text_of(told.get("version", ""))
        self._launch = told
        states = told["internal_states"]
        if not isinstance(states, list) or not states or not isinstance(states[0], dict):
            raise ValueError("no internal states")
        self._states = [state for state in states if isinstance(state, dict)]
        self.ranks = len(states)
        # Our plugin says which rank each state is of; SGLang itself does not.
        told_ranks = (_count(state.get(RANK_KEY)) for state in self._states)
        self._numbers = [rank for rank in told_ranks if rank is not None]
        self.numbered = len(set(self._numbers)) == self.ranks
        self.stages = _count(told.get("pp_size")) or 1
        # Our plugin says so, where it takes them on every rank (engines/sglang/plugin).
        offers = self._states[0].get("llmtop_live")
        self.offered = {name for name in OTHERS if isinstance(offers, list) and name in offers}
        described = self._states[0].get(DESCRIBED_KEY)
        self._described = described if isinstance(described, dict) else {}

    def values(self, name: str) -> set[int]:
        """The values in force on the reporting ranks: one value, unless only some were changed."""
        key, scale = (CAP_KEY, self.stages) if name == CAP else (name, 1)
        told = (_count(state.get(key)) for state in self._states)
        return {value * scale for value in told if value is not None}

    def value(self, name: str) -> int | None:
        """In force, the lowest where ranks differ; None when none reports it."""
        return min(self.values(name), default=None)

    def by_rank(self, name: str) -> tuple[RankValue, ...]:
        """In force on each data-parallel rank; () where there is one. Where ``numbered`` is false
        the number is only the place among the answers."""
        if self.ranks < 2:
            return ()
        key, scale = (CAP_KEY, self.stages) if name == CAP else (name, 1)
        told = [_count(state.get(key)) for state in self._states]
        values = [None if value is None else value * scale for value in told]
        numbers = self._numbers if self.numbered else range(len(values))
        return tuple(
            sorted((RankValue(n, v) for n, v in zip(numbers, values, strict=True)), key=_rank)
        )

    def option(self, name: str) -> LiveOption | None:
        """The option as it stands; None when its value or its limit is unknown."""
        value = self.value(name)
        found = None if value is None else self._of_one_rank(name, value)
        if found is None or self.ranks < 2:
            return found
        ranks = self.by_rank(name)
        notes = [found.note, f"for each of {self.ranks} data-parallel ranks"]
        shown = [RankValue(one.rank, found.named(one.value)) for one in ranks]
        if differs := difference_words(shown) if self.numbered else "":
            notes.append(f"the ranks differ: {differs}")
        elif len(values := self.values(name)) > 1:
            words = ", ".join(str(found.named(one)) for one in sorted(values))
            notes.append(f"the ranks differ: {words}")
        return replace(found, note="; ".join(filter(None, notes)), ranks=ranks)

    def _of_one_rank(self, name: str, value: int) -> LiveOption | None:
        if name == CAP:
            most = _count(self._states[0].get("effective_max_running_requests_per_dp"))
            if most is None:
                return None
            maximum = most // self.stages * self.stages
            launch = (_count(self._launch.get(CAP_KEY)) or most // self.stages) * self.stages
            note = "those above a lower limit finish; a raised one waits until a request has left"
            return LiveOption(value, launch, self.stages, maximum, Applies.DRAINS, note=note)
        described = self._described.get(name)
        if isinstance(described, dict):
            return replace(option_of(described), value=value, pending=None)
        launch = _count(self._launch.get(name)) or value
        return LiveOption(value, launch, 1, launch, Applies.LIVE_UP_TO_LAUNCH)


def _rank(one: RankValue) -> int:
    return one.rank


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
