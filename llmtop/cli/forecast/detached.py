"""A hold in the background, as the command line starts it and reports it."""

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
    """Start it, and return when it holds. LlmtopError with its last words when it does not."""
    from llmtop.operations.slo.detached_holder import start

    flags: list[str] = []
    flags += ["--for", f"{plan.seconds:g}"] if plan.seconds is not None else []
    flags += ["--config", str(config_file)] if config_file else []
    flags += ["--record", str(recording.absolute())] if recording is not None else []
    # The holder starts in another folder.
    flags += ["--report", str(Path(report).absolute())] if report is not None else []
    spans = (("--batch", plan.batch), ("--queue", plan.queue), ("--budget", plan.budget))
    for flag, bounds in spans:
        flags += [flag, f"{bounds[0]}..{bounds[1]}"] if bounds else []
    pid = start(wiring, plan.name, plan.slo, tuple(flags))
    if as_json:
        document({"name": plan.name, "slo": plan.slo, "pid": pid, "detached": True})
    else:
        note(f"{plan.name} is held by process {pid}; `llmtop hold {plan.name} --stop` ends it")
    return 0
