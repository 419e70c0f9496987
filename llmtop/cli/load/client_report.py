"""The validity of measurements, as JSON. docs/reference/json.md describes the fields."""

from __future__ import annotations

from typing import Any

from llmtop.cli.common.output import latency
from llmtop.loadgen.core.measures import LATENCIES, Measure, Verdict
from llmtop.loadgen.core.results import ClientHealth


def client_entry(health: ClientHealth) -> dict[str, Any]:
    """The state of the client in a load, a level or a run, and the verdict on each measure."""
    return {
        "verdict": health.verdict,
        "clock": health.clock,
        "lag_s": latency(health.lag) if health.lag else None,
        "cpu": health.cpu,
        "run_delay": health.run_delay,
        "strain": list(health.strain),
        "turnaround": health.sources.turnaround
        if health.sources is not None and health.sources.closed
        else None,
        "measures": measures_entry(health.measures),
    }


def measures_entry(verdicts: tuple[Verdict, ...]) -> dict[str, Any]:
    """Verdicts and error bounds by measure. A measure is valid when all its quantiles are."""
    found: dict[str, Any] = {}
    for measure in Measure:
        own = [one for one in verdicts if one.measure is measure]
        if not own:
            continue
        worst = next((one for one in own if not one.valid), own[0])
        found[measure.value] = {
            "valid": all(one.valid for one in own),
            "reason": worst.reason,
            "remedy": worst.remedy,
        }
        if measure in LATENCIES:
            found[measure.value] |= {
                one.quantile: {
                    "value_s": one.value,
                    "error_bound_s": one.bound,
                    "valid": one.valid,
                }
                for one in own
            }
        else:
            found[measure.value] |= {"value": worst.value, "error_bound": worst.bound}
    return found
