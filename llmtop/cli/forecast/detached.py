"""``llmtop hold --detach``: starts a hold in the background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtop.cli.common.output import document, note

if TYPE_CHECKING:
    from llmtop.operations.slo.hold_engine import HoldPlan
    from llmtop.operations.wiring import Wiring


def detached(
    wiring: Wiring,
    plan: HoldPlan,
    config_file: Any,
    recording: Path | None,
    report: str | None,
    *,
    as_json: bool,
) -> int:
    """Start a hold in the background, and return when it controls the engine. Returns 0.

    Raises LlmtopError with the last output of the process when it ends before that.
    """
    from llmtop.operations.slo.detached_holder import start

    flags: list[str] = []
    flags += ["--for", f"{plan.seconds:g}"] if plan.seconds is not None else []
    flags += ["--config", str(config_file)] if config_file else []
    flags += ["--record", str(recording.absolute())] if recording is not None else []
    # Absolute paths: the process starts in another folder.
    flags += ["--report", str(Path(report).absolute())] if report is not None else []
    ranges = (("--batch", plan.batch), ("--queue", plan.queue), ("--budget", plan.budget))
    for flag, bounds in ranges:
        flags += [flag, f"{bounds[0]}..{bounds[1]}"] if bounds else []
    pid = start(wiring, plan.name, plan.slo, tuple(flags))
    if as_json:
        document({"name": plan.name, "slo": plan.slo, "pid": pid, "detached": True})
    else:
        note(f"{plan.name} is held by process {pid}; `llmtop hold {plan.name} --stop` ends it")
    return 0
