"""Changes the scheduling policy of vLLM's queue while the engine runs.

vLLM reads the policy at each step, but it chose the class of its queues at launch. So a change
rebuilds the queues. The policy fcfs (first come, first served) restores the order of arrival, with
preempted requests first, as in vLLM itself.
"""

from __future__ import annotations

from typing import Any

from llmtop_live.tunables import TunableOption

# 0.24 and 0.26 have skipped_waiting besides the queue, 0.32 and later kv_holding_waiting.
QUEUES = ("waiting", "skipped_waiting", "kv_holding_waiting")


class QueuePolicy:
    """The queues of one scheduler. Runs on the engine's thread, between two steps."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._launch: Any = None

    def option(self) -> TunableOption | None:
        """The option with its policies; None if this scheduler's queues cannot be rebuilt."""
        try:
            from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
        except ImportError:
            return None
        policy = getattr(self._scheduler, "policy", None)
        kind = type(create_request_queue(policy)) if isinstance(policy, SchedulingPolicy) else None
        queues = self._queues()
        if (
            kind is None
            or "waiting" not in queues
            or any(type(q) is not kind for q in queues.values())
        ):
            return None
        names = tuple(str(one.value) for one in SchedulingPolicy)
        if not {"fcfs", "priority"} <= set(names) or len(names) > 8:
            return None
        self._launch = policy
        return TunableOption(
            "scheduling_policy",
            names.index(policy.value),
            0,
            len(names) - 1,
            "live",
            "priority: requests with a lower priority number first",
            choices=names,
        )

    def apply(self, name: str) -> None:
        """Order the waiting requests by another policy. If this raises, nothing has changed."""
        from vllm.v1.core.sched.request_queue import SchedulingPolicy

        self._rebuild(SchedulingPolicy(name))

    def restore(self) -> None:
        """Restore the launch policy."""
        if self._launch is not None and self._scheduler.policy is not self._launch:
            self._rebuild(self._launch)

    def _rebuild(self, policy: Any) -> None:
        from vllm.v1.core.sched.request_queue import create_request_queue

        rebuilt = {}
        for name, queue in self._queues().items():
            rebuilt[name] = create_request_queue(policy)
            for request in sorted(queue, key=_arrival):
                rebuilt[name].add_request(request)
        for name, queue in rebuilt.items():
            setattr(self._scheduler, name, queue)
        self._scheduler.policy = policy

    def _queues(self) -> dict[str, Any]:
        found = {name: getattr(self._scheduler, name, None) for name in QUEUES}
        return {name: queue for name, queue in found.items() if queue is not None}


def _arrival(request: Any) -> tuple[bool, float]:
    status = getattr(request.status, "name", request.status)
    return (status != "PREEMPTED", request.arrival_time)
