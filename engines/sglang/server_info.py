"""The live options in SGLang's ``/server_info``, for each data-parallel rank.

Source: SGLang 0.5.12 to 0.5.23, managers/scheduler.py, from 0.5.22
scheduler_components/internal_state.py. A request goes to all ranks (data_parallel_controller.py,
``send_control_message``). SGLang lists their answers in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtop.engines.core.live_protocol import LiveOption, option_of, text_of
from llmtop.engines.core.options import Applies, RankValue
from llmtop.engines.tuning.rank_merge import difference_words
from llmtop.values import replace

CAP = "max_running_requests"
# It limits admission also without pipeline parallelism. It is the only one of these options that
# every version can change; the others are sent in case this version can.
CAP_KEY = "pp_max_micro_batch_size"
OTHERS = (
    *("chunked_prefill_size", "max_prefill_tokens"),
    *("schedule_policy", "schedule_conservativeness"),
)
RANK_KEY = "llmtop_rank"
DESCRIBED_KEY = "llmtop_options"  # descriptions of options, by llmtop's plugin


class ServerInfo:
    """The parts of a ``/server_info`` answer that llmtop uses. Values are for each rank.

    ranks: the number of data-parallel ranks. numbered: whether llmtop's plugin reports the rank of
    each state. stages: pipeline stages. offered: further options that the plugin can change on all
    ranks. Raises ValueError or KeyError if the answer has no internal states.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.version = text_of(answer.get("version", ""))
        self._launch = answer
        states = answer["internal_states"]
        if not isinstance(states, list) or not states or not isinstance(states[0], dict):
            raise ValueError("no internal states")
        self._states = [state for state in states if isinstance(state, dict)]
        self.ranks = len(states)
        # llmtop's plugin reports the rank of each state; SGLang itself does not.
        reported = (_count(state.get(RANK_KEY)) for state in self._states)
        self._numbers = [rank for rank in reported if rank is not None]
        self.numbered = len(set(self._numbers)) == self.ranks
        self.stages = _count(answer.get("pp_size")) or 1
        # From llmtop's plugin (engines/sglang/plugin), if it can change them on every rank.
        offers = self._states[0].get("llmtop_live")
        self.offered = {name for name in OTHERS if isinstance(offers, list) and name in offers}
        described = self._states[0].get(DESCRIBED_KEY)
        self._described = described if isinstance(described, dict) else {}

    def values(self, name: str) -> set[int]:
        """The values in force on the reporting ranks: one value, unless only some were changed."""
        key, scale = (CAP_KEY, self.stages) if name == CAP else (name, 1)
        reported = (_count(state.get(key)) for state in self._states)
        return {value * scale for value in reported if value is not None}

    def value(self, name: str) -> int | None:
        """The value in force; the lowest if ranks differ, None if no rank reports it."""
        return min(self.values(name), default=None)

    def by_rank(self, name: str) -> tuple[RankValue, ...]:
        """The value in force on each data-parallel rank; () with one rank.

        Without ``numbered``, the rank is only the position among the answers.
        """
        if self.ranks < 2:
            return ()
        key, scale = (CAP_KEY, self.stages) if name == CAP else (name, 1)
        reported = [_count(state.get(key)) for state in self._states]
        values = [None if value is None else value * scale for value in reported]
        numbers = self._numbers if self.numbered else range(len(values))
        return tuple(
            sorted((RankValue(n, v) for n, v in zip(numbers, values, strict=True)), key=_rank)
        )

    def option(self, name: str) -> LiveOption | None:
        """The option with its value in force; None if its value or its limit is unknown."""
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
            note = (
                "requests above a lower limit finish; a higher limit takes effect when a request "
                "ends"
            )
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
