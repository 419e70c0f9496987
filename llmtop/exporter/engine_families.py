"""The metric families of all engines. docs/reference/exporter.md describes each one.

Cardinality is bounded. Labels are the engine's name and words of fixed lists. At most
``MOST_ENGINES`` engines with ``MOST_OPTIONS`` options each are exported (``control_families``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmtop import __version__
from llmtop.exporter.client_families import client
from llmtop.exporter.control_families import control
from llmtop.exporter.facts import EngineFacts
from llmtop.exporter.families import Distribution, Family, Kind, Sample
from llmtop.exporter.series import counter, distinct, gauge, label_text, states

MOST_ENGINES = 64
STATES = ("starting", "ready", "unresponsive", "stopping", "stopped", "failed", "lost", "attached")
LEVELS = ("headroom", "near_knee", "saturated", "overloaded", "hung")
CAUSES = (
    *("none", "batch_limit", "kv_cache", "prefill", "token_budget", "decode", "host", "front_end"),
    *("speculation", "gpu_throttled", "client", "long_requests", "hung", "unknown"),
)
PARTS = ("weights", "kv", "graphs", "activations", "runtime")
LATENCIES = {
    "ttft": "From the arrival of a request to its first token.",
    "queue": "From the arrival of a request to its first admission.",
    "prefill": "From the admission of a request to its first token.",
    "tpot": "(end to end - TTFT) / (tokens - 1), one value per request.",
    "itl": "Gap between two tokens of one request.",
    "e2e": "From the arrival of a request to its last token.",
    "arrival_lag": "From the arrival at the server to the scheduler.",
    "output_lag": "From the end of a step to the client's socket.",
}
STEP_KINDS = ("prefill", "decode", "mixed", "empty")


def families(engines: Sequence[EngineFacts], orphans: int | None = None) -> list[Family]:
    """All families that have a series, in a fixed order.

    orphans: number of processes on this machine whose engine has ended; None: not known.
    """
    shown = list(engines)[:MOST_ENGINES]
    build = Family(
        "llmtop_exporter",
        Kind.INFO,
        "Version of the llmtop that exports.",
        (Sample({"version": __version__}, 1.0),),
    )
    orphan = Family(
        "llmtop_orphan_processes",
        Kind.GAUGE,
        "Processes that remain of ended engines; they may hold GPU memory.",
        (Sample({}, float(orphans)),) if orphans is not None else (),
    )
    found = [build, orphan, *_identity(shown), *_state(shown), *_steps(shown), *_resources(shown)]
    found += [*control(shown), *client(shown)]
    return [distinct(one) for one in found if one.samples or one.distributions]


def _identity(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    yield Family(
        "llmtop_engine",
        Kind.INFO,
        "A watched engine.",
        tuple(
            Sample(
                {
                    "engine": label_text(one.name),
                    "kind": one.kind,
                    "model": label_text(one.model),
                    "version": label_text(one.version),
                    "url": label_text(one.url),
                    "simulated": "true" if one.simulated else "false",
                },
                1.0,
            )
            for one in engines
        ),
    )
    yield gauge(
        "llmtop_engine_answers", "1 while the engine's metrics page answers.", engines,
        lambda one: float(one.answers),
    )  # fmt: skip
    yield gauge(
        "llmtop_engine_hung", "1 while requests run and no metric changes.", engines,
        lambda one: float(one.hung),
    )  # fmt: skip
    yield gauge(
        "llmtop_engine_frozen", "1 while a signal (SIGSTOP) has stopped its process.", engines,
        lambda one: None if one.frozen is None else float(one.frozen),
    )  # fmt: skip


def _state(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    yield states(
        "llmtop_engine_state", "State of its process.", STATES, engines, lambda one: one.state
    )
    yield states("llmtop_load_state", "State of its load.", LEVELS, engines, lambda one: one.level)
    yield states(
        "llmtop_why", "The main cause of the time that requests take.", CAUSES, engines,
        lambda one: next(iter(one.causes), ""),
    )  # fmt: skip
    yield Family(
        "llmtop_why_share",
        Kind.GAUGE,
        "Share of the time of requests that a cause takes, 0 to 1.",
        tuple(
            Sample({"engine": label_text(one.name), "cause": cause}, share)
            for one in engines
            for cause, share in one.causes.items()
            if share is not None and cause in CAUSES
        ),
    )
    for name, help, value in (
        ("running", "Requests in the batch.", lambda one: one.running),
        ("waiting", "Requests in the queue.", lambda one: one.waiting),
    ):
        yield gauge(f"llmtop_requests_{name}", help, engines, value)
    yield gauge(
        "llmtop_kv_usage_ratio", "Share of the KV cache in use.", engines, lambda one: one.kv_usage
    )
    yield gauge(
        "llmtop_oldest_waiting_seconds", "Age of the oldest request in the queue.", engines,
        lambda one: one.oldest_wait_s, "seconds",
    )  # fmt: skip


def _steps(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    for name, help in LATENCIES.items():
        yield Family(
            f"llmtop_{name}_seconds",
            Kind.HISTOGRAM,
            help,
            distributions=tuple(
                Distribution({"engine": label_text(one.name)}, one.latencies[name])
                for one in engines
                if name in one.latencies
            ),
            unit="seconds",
        )
    steps = [
        (label_text(one.name), kind, took, count)
        for one in engines
        for kind, (took, count) in one.steps.items()
        if kind in STEP_KINDS
    ]
    yield Family(
        "llmtop_step_seconds",
        Kind.COUNTER,
        "Time of the scheduler's steps by kind.",
        tuple(Sample({"engine": name, "kind": kind}, took) for name, kind, took, _ in steps),
        unit="seconds",
    )
    yield Family(
        "llmtop_steps",
        Kind.COUNTER,
        "Steps of the scheduler by kind.",
        tuple(Sample({"engine": name, "kind": kind}, count) for name, kind, _, count in steps),
    )
    yield counter(
        "llmtop_host_gap_seconds", "Time with requests in which the device had no work.", engines,
        lambda one: one.host_gap_s, "seconds",
    )  # fmt: skip
    yield counter(
        "llmtop_idle_seconds", "Time without work.", engines, lambda one: one.idle_s, "seconds"
    )
    yield counter(
        "llmtop_steps_lost", "Steps that were overwritten before they were read.", engines,
        lambda one: one.steps_lost,
    )  # fmt: skip
    yield counter(
        "llmtop_requests_refused", "Requests that were refused at the queue limit.", engines,
        lambda one: one.refused,
    )  # fmt: skip
    yield counter(
        "llmtop_requests_preempted",
        "Requests put back into the queue because KV blocks ran out.",
        engines, lambda one: one.preempted,
    )  # fmt: skip


def _resources(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    yield Family(
        "llmtop_memory_bytes",
        Kind.GAUGE,
        "Memory on each GPU by part, as the engine reported it when it started.",
        tuple(
            Sample({"engine": label_text(one.name), "part": part}, one.memory[part])
            for one in engines
            for part in PARTS
            if part in one.memory
        ),
        unit="bytes",
    )
    yield counter(
        "llmtop_restarts", "Restarts of the engine.", engines,
        lambda one: one.restarts,
    )  # fmt: skip
    yield Family(
        "llmtop_last_end",
        Kind.INFO,
        "Why the last process of an engine ended.",
        tuple(
            Sample({"engine": label_text(one.name), "cause": label_text(one.cause)}, 1.0)
            for one in engines
            if one.cause
        ),
    )
    yield gauge(
        "llmtop_tokens_per_joule", "Generated tokens per joule of its GPUs, last minute.", engines,
        lambda one: one.tokens_per_joule,
    )  # fmt: skip
    yield gauge(
        "llmtop_dollars_per_million_tokens", "Price of a million generated tokens, last minute.",
        engines, lambda one: one.dollars_per_million_tokens,
    )  # fmt: skip
