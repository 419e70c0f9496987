"""Changes how SGLang's scheduler admits requests while it runs: the policy, the reservation.

SGLang reads the policy at each admission. It sorts the queue in place, so a change to fcfs (first
come, first served) must restore the order of arrival. The conservativeness is the share of a
request's maximum output that SGLang reserves. SGLang reads it only at launch and computes ratios
from it; this module sets these ratios.
"""

from __future__ import annotations

import enum
from typing import Any

from llmtop_live.tunables import TunableOption

POLICIES = "sglang.srt.managers.schedule_policy"
FCFS = "fcfs"
AWARE = "CacheAwarePolicy"
KINDS = (AWARE, "CacheAgnosticPolicy")
WITH_PRIORITY = (FCFS, "lof")  # with priority scheduling, SGLang refuses the others at launch
ONLY_AT_LAUNCH = ("shortest-prefill-first",)  # other parts of SGLang check it at launch
MOST_POLICIES = 32
PARTS = 100  # the protocol has whole numbers: hundredths
MOST_CONSERVATIVE = 1000  # hundredths: 10.0
FIELDS = ("init", "min", "decay", "current")
OLD_FIELDS = (
    "init_new_token_ratio",
    "min_new_token_ratio",
    "new_token_ratio_decay",
    "new_token_ratio",
)


class QueueOrder:
    """The policy of one scheduler. Runs on its thread. lockstep_ranks: see ``Ranks``."""

    def __init__(self, scheduler: Any, lockstep_ranks: int = 1) -> None:
        self._scheduler = scheduler
        self._lockstep_ranks = lockstep_ranks
        self._policies: dict[str, Any] = {}
        self._launch: Any = None

    def option(self) -> TunableOption | None:
        """The option with its policies; None if this scheduler's policy cannot change."""
        holder = getattr(self._scheduler, "policy", None)
        policy = getattr(holder, "policy", None)
        if not isinstance(policy, enum.Enum):
            return None
        import importlib

        module = importlib.import_module(POLICIES)
        # Without a prefix cache, SGLang replaces cache-aware policies by fcfs.
        cached = not getattr(getattr(holder, "tree_cache", None), "disable", True)
        kinds = [getattr(module, name, ()) for name in KINDS if cached or name != AWARE]
        found = {str(one.value): one for kind in kinds for one in kind}
        if getattr(self._scheduler, "enable_priority_scheduling", False):
            found = {name: one for name, one in found.items() if name in WITH_PRIORITY}
        # After a live change, ranks would draw different random numbers.
        for name in (*ONLY_AT_LAUNCH, *(("random",) if self._lockstep_ranks > 1 else ())):
            if policy.value != name:
                found.pop(name, None)
        self._policies = found
        names = tuple(sorted(self._policies))
        if FCFS not in names or policy.value not in names or len(names) > MOST_POLICIES:
            return None
        self._launch = policy
        note = "in a long queue, SGLang matches only the first requests with the prefix cache"
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
        """Order the queue by this policy from the next admission on."""
        self._set(self._policies[name])

    def restore(self) -> None:
        """Restore the launch policy."""
        if self._launch is not None and self._scheduler.policy.policy is not self._launch:
            self._set(self._launch)

    def _set(self, policy: Any) -> None:
        scheduler = self._scheduler
        if policy.value == FCFS:
            # Retracted requests were admitted earlier than all that never ran.
            scheduler.waiting_queue.sort(key=_arrival)
        scheduler.policy.policy = policy


def _arrival(request: Any) -> tuple[bool, float]:
    stamps = request.time_stats
    return (
        not request.retraction_count,
        getattr(stamps, "scheduler_recv_time", 0.0) or stamps.wait_queue_entry_time,
    )


class Conservativeness:
    """The share of a request's maximum output that one scheduler reserves. Runs on its thread."""

    def __init__(self, scheduler: Any) -> None:
        tracker = getattr(scheduler, "new_token_ratio_tracker", None)
        self._holder = tracker if tracker is not None else scheduler
        self._names = FIELDS if tracker is not None else OLD_FIELDS
        self._args = getattr(scheduler, "server_args", None)
        self._launch: dict[str, float] = {}
        self._base: tuple[float, float, float] | None = None

    def option(self) -> TunableOption | None:
        """The option, in hundredths; None if this scheduler's structure is unknown."""
        values = {name: getattr(self._holder, name, None) for name in self._names}
        if not all(_is_ratio(value) for value in values.values()):
            return None
        base = _constants()
        if base is None:
            return None
        first = float(values[self._names[0]] or 0.0)
        flag = getattr(self._args, "schedule_conservativeness", None)
        # From the ratio, because SGLang scales the flag for data-parallel attention. It limits the
        # ratio to 1; then the flag is used.
        launch = first / base[0]
        if first >= 1.0 and isinstance(flag, (int, float)):
            launch = float(flag)
        self._launch = {name: float(value or 0.0) for name, value in values.items()}
        self._base = base
        note = (
            "a lower value admits more requests and retracts more; the output of requests with "
            "ignore_eos is always reserved in full"
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
        """Set the ratios as SGLang computes them at launch. Its adapted ratio starts again."""
        assert self._base is not None
        ratio, factor, steps = self._base
        first = min(ratio * hundredths / PARTS, 1.0)
        least = min(first * factor, 1.0)
        decay = (first - least) / steps
        for name, value in zip(self._names, (first, least, decay, first), strict=True):
            setattr(self._holder, name, value)

    def restore(self) -> None:
        """Restore the launch ratios. The adapted ratio starts again."""
        for name, value in self._launch.items():
            setattr(self._holder, name, value)


def _constants() -> tuple[float, float, float] | None:
    """SGLang's constants: initial ratio, share of it that is the minimum, steps of the decay."""
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
