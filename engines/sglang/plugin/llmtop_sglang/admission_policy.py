"""How SGLang's scheduler chooses who is admitted next, changed while it runs.

The order of the queue is read at each admission. SGLang sorts the queue in place, so first come,
first served puts it into the order of arrival again. Conservativeness, how much of the longest
answer is reserved for a request, is read at launch only; what it is turned into is set here.
"""

from __future__ import annotations

import enum
from typing import Any

from llmtop_live.tunables import TunableOption

POLICIES = "sglang.srt.managers.schedule_policy"
FCFS = "fcfs"
AWARE = "CacheAwarePolicy"
KINDS = (AWARE, "CacheAgnosticPolicy")
WITH_PRIORITY = (FCFS, "lof")  # SGLang refuses the others at its launch then
ONLY_AT_LAUNCH = ("shortest-prefill-first",)  # other parts ask for it at launch too
MOST_POLICIES = 32
PARTS = 100
MOST_CONSERVATIVE = 1000  # ten times
FIELDS = ("init", "min", "decay", "current")
OLD_FIELDS = (
    "init_new_token_ratio",
    "min_new_token_ratio",
    "new_token_ratio_decay",
    "new_token_ratio",
)


class QueueOrder:
    """The policy of one scheduler. On its thread. together: so many ranks must choose alike."""

    def __init__(self, scheduler: Any, together: int = 1) -> None:
        self._scheduler = scheduler
        self._together = together
        self._policies: dict[str, Any] = {}
        self._launch: Any = None

    def option(self) -> TunableOption | None:
        """The choice of policies; None where this scheduler's cannot be changed."""
        holder = getattr(self._scheduler, "policy", None)
        policy = getattr(holder, "policy", None)
        if not isinstance(policy, enum.Enum):
            return None
        import importlib

        module = importlib.import_module(POLICIES)
        # Without a prefix cache SGLang itself takes fcfs for what goes by prefixes.
        cached = not getattr(getattr(holder, "tree_cache", None), "disable", True)
        kinds = [getattr(module, name, ()) for name in KINDS if cached or name != AWARE]
        found = {str(one.value): one for kind in kinds for one in kind}
        if getattr(self._scheduler, "enable_priority_scheduling", False):
            found = {name: one for name, one in found.items() if name in WITH_PRIORITY}
        # Ranks that were started together draw the same random numbers, and only then.
        for name in (*ONLY_AT_LAUNCH, *(("random",) if self._together > 1 else ())):
            if policy.value != name:
                found.pop(name, None)
        self._policies = found
        names = tuple(sorted(self._policies))
        if FCFS not in names or policy.value not in names or len(names) > MOST_POLICIES:
            return None
        self._launch = policy
        note = "of long queues only the first are matched with the prefix cache"
        return TunableOption(
            "schedule_policy",
            names.index(policy.value),
            0,
            len(names) - 1,
            "live",
            note,
            choices=names,
        )

    def apply(self, name: str) -> None:
        """Order the queue by this from the next admission on."""
        self._set(self._policies[name])

    def restore(self) -> None:
        """The policy of the launch again."""
        if self._launch is not None and self._scheduler.policy.policy is not self._launch:
            self._set(self._launch)

    def _set(self, policy: Any) -> None:
        scheduler = self._scheduler
        if policy.value == FCFS:
            # Those that were put back while they ran came before all that never ran.
            scheduler.waiting_queue.sort(key=_arrival)
        scheduler.policy.policy = policy


def _arrival(request: Any) -> tuple[bool, float]:
    stamps = request.time_stats
    return (
        not request.retraction_count,
        getattr(stamps, "scheduler_recv_time", 0.0) or stamps.wait_queue_entry_time,
    )


class Conservativeness:
    """How much of a request's longest answer one scheduler reserves. On its thread."""

    def __init__(self, scheduler: Any) -> None:
        tracker = getattr(scheduler, "new_token_ratio_tracker", None)
        self._holder = tracker if tracker is not None else scheduler
        self._names = FIELDS if tracker is not None else OLD_FIELDS
        self._args = getattr(scheduler, "server_args", None)
        self._launch: dict[str, float] = {}
        self._base: tuple[float, float, float] | None = None

    def option(self) -> TunableOption | None:
        """In hundredths; None where this scheduler keeps its ratio otherwise."""
        values = {name: getattr(self._holder, name, None) for name in self._names}
        if not all(_is_ratio(value) for value in values.values()):
            return None
        base = _constants()
        if base is None:
            return None
        first = float(values[self._names[0]] or 0.0)
        given = getattr(self._args, "schedule_conservativeness", None)
        # What SGLang itself makes of the flag, for data-parallel attention; at the top it is cut.
        launch = first / base[0]
        if first >= 1.0 and isinstance(given, (int, float)):
            launch = float(given)
        self._launch = {name: float(value or 0.0) for name, value in values.items()}
        self._base = base
        note = (
            "requests with ignore_eos are reserved in full whatever it is; a lower value admits "
            "more and retracts more"
        )
        at_launch = round(launch * PARTS)
        return TunableOption(
            "schedule_conservativeness",
            at_launch,
            0,
            max(MOST_CONSERVATIVE, at_launch),
            "live",
            note,
            parts=PARTS,
        )

    def apply(self, hundredths: int) -> None:
        """As SGLang turns it into ratios at its launch. What it learned meanwhile starts again."""
        assert self._base is not None
        ratio, factor, steps = self._base
        first = min(ratio * hundredths / PARTS, 1.0)
        least = min(first * factor, 1.0)
        decay = (first - least) / steps
        for name, value in zip(self._names, (first, least, decay, first), strict=True):
            setattr(self._holder, name, value)

    def restore(self) -> None:
        """The ratios of the launch; the one in force starts again."""
        for name, value in self._launch.items():
            setattr(self._holder, name, value)


def _constants() -> tuple[float, float, float] | None:
    """SGLang's: first ratio, share of the least one, steps from one to the other."""
    try:
        from sglang.srt.environ import envs

        found = (
            float(envs.SGLANG_INIT_NEW_TOKEN_RATIO.get()),
            float(envs.SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR.get()),
            float(envs.SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS.get()),
        )
    except (ImportError, AttributeError):
        return None
    return found if found[0] > 0 and found[2] > 0 else None


def _is_ratio(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
