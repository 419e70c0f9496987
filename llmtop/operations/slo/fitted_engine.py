"""A fitted engine, the input of a forecast: the model of its steps, its options and its load.

No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.options import Option
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.core.requests import RequestTable
from llmtop.engines.core.steps import Step
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.fit import Fit, fit
from llmtop.forecast.load import FrontEnd, Load, Present, Settings
from llmtop.forecast.observed import Observed, observed, present
from llmtop.forecast.questions import Refusal
from llmtop.operations.slo.limits import settings_of
from llmtop.slo_control.pressure import mean_gap

LOAD_S = 15.0  # time of the newest steps that determine the current load
FIT_S = 180.0  # older steps are not used: the state of the machine may have been different
LEAST_LAGS = 20  # requests that are needed for the latency of the front end
EFFICIENCY = 0.9
"""Share of the datasheet's memory bandwidth that kernels reach: 4.3 of 4.8 TB/s on an H200."""
BANDWIDTHS = (  # bytes/s, datasheets of NVIDIA
    (r"B200", 8000e9),
    (r"H200|GH200.*144", 4800e9),
    (r"H100.*(?:PCIe)", 2039e9),
    (r"H100|h100|GH200", 3350e9),
    (r"A100.*80", 2039e9),
    (r"A100", 1555e9),
    (r"L40S|L40", 864e9),
    (r"L4\b", 300e9),
    (r"A10G?\b", 600e9),
)
SIMULATED_FRONT_END = FrontEnd(0.0, 0.0, 6e-3)


class FittedEngine(Struct, frozen=True):
    """The input of a forecast. measured: figures of the last seconds by name; None if unknown.

    observed: None if too few requests arrived; ``no_load`` then has the reason.
    """

    name: str
    simulated: bool
    fit: Fit
    front_end: FrontEnd
    options: tuple[Option, ...]
    settings: Settings
    observed: Observed | None
    no_load: Refusal | None
    table: RequestTable | None
    running: int
    waiting: int
    ranks: int
    measured: Mapping[str, float | None]

    def present(self, load: Load) -> Present:
        """The requests that one rank has now."""
        return present(self.running, self.waiting, self.table, load, self.ranks)


class EngineReadings(Struct, frozen=True):
    """The data read from an engine. kv_tokens: capacity of its KV cache, in tokens. context_s: see
    ``seconds_of_context``. weights_s: see ``seconds_of_weights``. streams: if the sender of the
    load reports a closed loop, its streams."""

    name: str
    simulated: bool
    steps: Sequence[Step]
    options: tuple[Option, ...]
    kv_tokens: int | None = None
    context_s: float | None = None
    weights_s: float | None = None
    table: RequestTable | None = None
    latencies: Latencies | None = None
    streams: float | None = None
    measured: Mapping[str, float | None] = {}


def fit_engine(read: EngineReadings) -> FittedEngine:
    """Fit a model to the data. Raises NotFitted when there is too little. Takes CPU time."""
    steps, table = read.steps, read.table
    fitted = fit(steps, read.context_s, read.weights_s, launches=not read.simulated)
    found, no_load = None, None
    try:
        found = observed(newest(steps, LOAD_S), table, read.streams)
    except NotFitted as error:
        no_load = Refusal(error.reason, error.remedy)
    lasts = {step.rank: step for step in steps}.values()
    return FittedEngine(
        name=read.name,
        simulated=read.simulated,
        fit=fitted,
        front_end=front_end(read.latencies, simulated=read.simulated),
        options=read.options,
        settings=settings_of(read.options, read.kv_tokens),
        observed=found,
        no_load=no_load,
        table=table,
        running=table.running if table else sum(step.running for step in lasts),
        waiting=table.waiting if table else sum(step.waiting for step in lasts),
        ranks=max(1, len(lasts)),
        measured=read.measured,
    )


def front_end(latencies: Latencies | None, *, simulated: bool) -> FrontEnd:
    """The model of the HTTP server, from the time between a request's arrival and the scheduler.

    latencies: None, or too few of them: the default model.
    """
    usual = SIMULATED_FRONT_END if simulated else FrontEnd()
    lag = latencies.histograms.get("arrival_lag") if latencies is not None else None
    middle = lag.quantile(0.5) if lag is not None and lag.count >= LEAST_LAGS else None
    if middle is None:
        return usual
    return FrontEnd(usual.request_s, usual.token_s, max(0.0, middle - usual.request_s))


def seconds_of_context(
    kv_bytes: float | None, kv_tokens: int | None, ranks: int, bandwidth: float | None
) -> float | None:
    """Seconds to read the keys and values of one token: its bytes divided by the bandwidth.

    kv_bytes: size of the KV cache on one GPU. bandwidth: bytes/s. None if one of them is unknown.
    """
    if not kv_bytes or not kv_tokens or not bandwidth:
        return None
    return kv_bytes * max(1, ranks) / kv_tokens / bandwidth


def seconds_of_weights(weights: float | None, bandwidth: float | None) -> float | None:
    """Seconds to read the weights on one GPU: their bytes divided by the bandwidth (bytes/s)."""
    return weights / bandwidth if weights and bandwidth else None


def simulated_gpu(record: EngineRecord | None) -> str:
    """The GPU model of a simulated engine."""
    args = " ".join(record.spec.args) if record is not None else ""
    chosen = re.search(r"--gpu[ =](\S+)", args)
    return chosen[1].upper() if chosen else "H200"


def bandwidth_of_all(names: Collection[str]) -> float | None:
    """The reachable bandwidth of GPUs of one model; None for several models, or no GPU."""
    kinds = set(names)
    return bandwidth_of(kinds.pop()) if len(kinds) == 1 else None


def bandwidth_of(name: str) -> float | None:
    """The memory bandwidth that kernels reach on a GPU, in bytes/s; None if unknown."""
    for pattern, peak in BANDWIDTHS:
        if re.search(pattern, name):
            return peak * EFFICIENCY
    return None


def newest(steps: Sequence[Step], seconds: float) -> list[Step]:
    """The steps of the last ``seconds`` before the newest step."""
    if not steps:
        return []
    since = max(step.end for step in steps) - seconds
    return [step for step in steps if step.end > since]


def measured(
    steps: Sequence[Step], before: Latencies | None, after: Latencies | None
) -> dict[str, float | None]:
    """Figures that the engine itself measured, by name; None if unknown.

    steps: of the window. before, after: cumulative latencies at its begin and end.
    """
    seconds = steps[-1].end - steps[0].end if len(steps) > 1 else 0.0
    tokens = sum(step.output_tokens or step.decode_tokens for step in steps[1:])
    refused = sum(step.refused or 0 for step in steps[1:])
    found: dict[str, float | None] = {
        "output_tokens_per_s": tokens / seconds if seconds > 0 else None,
        "tpot_mean": mean_gap(steps),
        "refused_per_s": refused / seconds if seconds > 0 else None,
    }
    for name in ("ttft", "tpot"):
        now = after.histograms.get(name) if after is not None else None
        then = before.histograms.get(name) if before is not None else None
        window = now.minus(then) if now is not None and then is not None else None
        for share, word in ((0.5, "p50"), (0.95, "p95")):
            found[f"{name}_{word}"] = window.quantile(share) if window is not None else None
    return found
