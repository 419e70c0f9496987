"""Sends a recorded load several times, each time with new prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import finite
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.cli.common.status_line import StatusLine
    from llmtop.cli.load.load_target import LoadTarget
    from llmtop.loadgen.core.client_capacity import Calibration

SEEDS = 2**62  # seeds are whole numbers below this


def prompts_again(load: Mapping[str, Any], dataset: str | None) -> Prompts:
    """The prompts of a recorded load. dataset: the file, because a record contains only its name.

    Raises LlmtopError when the record is not sufficient, UsageError when the file is missing.
    """
    recorded = load.get("prompts")
    if not isinstance(recorded, Mapping):
        raise LlmtopError(
            "the baseline does not record its prompts, so it cannot be repeated",
            "record it again with this version: llmtop load NAME --json",
        )
    if recorded.get("json_schema"):
        raise LlmtopError(
            "the baseline used a JSON schema for its answers, but does not contain it",
            "record a baseline without --json-schema",
        )
    if recorded.get("dataset") and dataset is None:
        raise UsageError("the baseline read its prompts from a dataset", "give it with --dataset")
    try:
        found = msgspec.convert({**recorded, "json_schema": "", "dataset": ""}, Prompts)
    except msgspec.ValidationError as error:
        raise LlmtopError(
            f"the baseline's prompts are not readable: {error}", "record the baseline again"
        ) from None
    return replace(found, dataset=dataset or "")


def plan_again(load: Mapping[str, Any]) -> Plan:
    """The load over time of a recorded load, without its seed. Raises LlmtopError."""
    known = {
        name: load[name] for name in ("loop", "shape", "arrival", "burstiness") if name in load
    }
    try:
        return msgspec.convert(known, Plan)
    except msgspec.ValidationError as error:
        raise LlmtopError(
            f"the baseline's load is not readable: {error}", "record the baseline again"
        ) from None


class RepeatedLoad:
    """A recorded load that can be sent again. duration: seconds. highest: its highest level.

    new_seed: returns a whole number from 0 to SEEDS - 1, for the prompts of the next run. Raises
    LlmtopError for a load that never ends.
    """

    def __init__(
        self,
        plan: Plan,
        prompts: Prompts,
        *,
        workers: int | None,
        timeout_s: float,
        calibration: Calibration | None,
        new_seed: Callable[[], int],
    ) -> None:
        from llmtop.loadgen.workload.schedule import check

        parsed = check(plan)
        if parsed.duration is None:
            raise LlmtopError(
                f"the baseline's load {plan.shape!r} has no end", "record a load that ends"
            )
        self.duration: float = parsed.duration
        self.highest = parsed.highest
        self.prompts = prompts
        self._plan, self._workers, self._timeout_s = plan, workers, timeout_s
        self._calibration, self._new_seed = calibration, new_seed

    def run(self, found: LoadTarget, line: StatusLine) -> dict[str, Any]:
        """Send the load once, and return its JSON document.

        Raises KeyboardInterrupt when Ctrl+C ended it, LlmtopError when no request succeeded.
        """
        from llmtop.cli.load.load_entry import entry
        from llmtop.cli.load.watching import watch
        from llmtop.loadgen.workers.load import Load

        plan = replace(self._plan, seed=self._new_seed())
        load = Load(
            found.target,
            self.prompts,
            workers=self._workers,
            timeout_s=self._timeout_s,
            calibration=self._calibration,
        )
        try:
            load.start(plan)
            result, interrupted = watch(load, self.duration, self._timeout_s, line)
        finally:
            load.close()
        if interrupted:
            raise KeyboardInterrupt
        if not result.ok:
            reason = next(iter(result.errors), "no answer")
            raise LlmtopError(f"no request of {found.name} succeeded: {reason}",
                              "try `llmtop load` to see why")  # fmt: skip
        document: dict[str, Any] = finite(
            entry(found.name, found.simulated, plan, result, self._calibration, run=load.run)
        )
        return document
