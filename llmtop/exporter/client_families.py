"""Metric families of the load that llmtop sends from this machine, as the client measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from llmtop.exporter.facts import EngineFacts
from llmtop.exporter.families import Family, Kind, Sample
from llmtop.exporter.series import gauge, label_text


def client(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    """The families of requests in flight, rates, waiting time and results."""
    loaded = [one for one in engines if one.load is not None]

    def of(value: Callable[[EngineFacts], float | None]) -> Callable[[EngineFacts], float | None]:
        return value

    gauges: Mapping[str, tuple[str, Callable[[EngineFacts], float | None]]] = {
        "llmtop_client_in_flight": (
            "Requests of llmtop's load in flight.",
            of(lambda one: one.load.in_flight if one.load else None),
        ),
        "llmtop_client_requests_per_second": (
            "Finished requests per second of llmtop's load.",
            of(lambda one: one.load.requests_per_s if one.load else None),
        ),
        "llmtop_client_output_tokens_per_second": (
            "Tokens per second that llmtop's load receives.",
            of(lambda one: one.load.output_tokens_per_s if one.load else None),
        ),
        "llmtop_client_oldest_wait_seconds": (
            "Age of the oldest request without a first token.",
            of(lambda one: one.load.oldest_wait_s if one.load else None),
        ),
    }
    for name, (help, value) in gauges.items():
        yield gauge(name, help, loaded, value)
    yield Family(
        "llmtop_client_ttft_quantile_seconds",
        Kind.GAUGE,
        "Quantiles of the time to the first token, measured by the client over the last seconds.",
        tuple(
            Sample({"engine": label_text(one.name), "quantile": quantile}, seconds)
            for one in loaded
            for quantile, seconds in (one.load.ttft_s.items() if one.load else ())
        ),
        unit="seconds",
    )
    yield Family(
        "llmtop_client_requests",
        Kind.COUNTER,
        "Requests of llmtop's load by result.",
        tuple(
            Sample({"engine": label_text(one.name), "result": result}, float(count))
            for one in loaded
            if one.load is not None
            for result, count in (
                ("ok", one.load.ok),
                ("failed", one.load.failed),
                ("refused", one.load.refused),
            )
        ),
    )
