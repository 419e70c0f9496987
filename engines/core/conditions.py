"""Problems of an engine that are visible from outside, each with a remedy.

One list for the dashboard, ``attach`` and ``once``. A condition states what the engine's own pages
show. It does not guess the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

# Longer than one step of an engine, and than SGLang's report interval: by default 40 decode steps,
# which is 8 s at five steps a second. The condition appears at the next reading, within 10 s.
HUNG_S = 8.0
# From this difference on, the fullest rank is reported beside the mean: a full rank queues and
# preempts requests although the mean is low.
UNEVEN = 0.2
_SHOWN = 3  # names in a list
_NAME_CHARS = 60

KEY = "LLMTOP_API_KEY"
KNOWN_ENGINES = "vLLM, SGLang and TensorRT-LLM"  # those that run outside llmtop
UNKNOWN_ENGINE = (
    "these are metrics of an engine that llmtop does not know",
    f"it knows {KNOWN_ENGINES}; check host and port",
)


class Name(StrEnum):
    """The finding's name, also in JSON and tests. The most severe comes first."""

    NEEDS_KEY = "needs_key"  # it answers 401 or 403
    FROZEN = "frozen"  # its process is stopped by a signal, or its server does not answer
    HUNG = "hung"  # requests run and no number changes
    ASLEEP = "asleep"  # its weights are unloaded
    SEVERAL_SERVERS = "several_servers"  # several servers answer at one address
    ROUTER = "router"  # the page is that of a router or gateway in front of engines
    NO_METRICS = "no_metrics"  # it answers, and has no numbers
    OLD_VERSION = "old_version"  # older than what llmtop reads
    RENAMED_SERIES = "renamed_series"  # the series have other names
    MISSING_TOTALS = "missing_totals"  # the token counters are missing under their names
    SEVERAL_MODELS = "several_models"  # one page sums several models
    UNEVEN_RANKS = "uneven_ranks"  # one rank is far fuller than the mean
    IMPOSSIBLE = "impossible_values"  # numbers that no engine can have


# With one of these its numbers do not change and are useless.
STALE = frozenset({Name.FROZEN, Name.HUNG})


class Condition(Struct, frozen=True):
    """One finding. message: the fact, in one sentence. hint: what to do about it."""

    name: Name
    message: str
    hint: str


def gravest_first(found: Sequence[Condition]) -> tuple[Condition, ...]:
    """Each finding once, in the order of ``Name``. On a router's page, ``HUNG`` and
    ``MISSING_TOTALS`` are dropped."""
    if len(found) < 2:
        return tuple(found)
    order = list(Name)
    first = {one.name: one for one in reversed(found)}
    if Name.ROUTER in first:
        # A router counts requests of engines elsewhere. It need not report their progress.
        for name in (Name.HUNG, Name.MISSING_TOTALS):
            first.pop(name, None)
    return tuple(sorted(first.values(), key=lambda one: order.index(one.name)))


def frozen(why: str) -> Condition:
    """An engine that llmtop started is alive and does not answer. why: the known reason."""
    return Condition(
        Name.FROZEN,
        f"stale: {why or 'it does not answer'}",
        "kill -CONT continues a stopped process; otherwise restart it",
    )


def hung(running: int | None, waiting: int | None, still_s: float) -> Condition:
    """Requests run or wait, and no number of the engine has changed for ``still_s``."""
    parts = [f"{running:,} running"] if running else []
    parts += [f"{waiting:,} waiting"] if waiting else []
    return Condition(
        Name.HUNG,
        f"hung: {', '.join(parts)}, no number has moved for {still_s:.0f}s; all are stale",
        "it is stuck, paused, without a CPU core, or in one very long step: see top and its log, "
        "then restart it",
    )


def unanswered(in_flight: int, still_s: float) -> Condition:
    """llmtop's requests are in flight, the engine reports none, and no number changes."""
    return Condition(
        Name.HUNG,
        f"hung: {in_flight:,} requests of this load are in flight, the engine reports none, and no "
        f"number has moved for {still_s:.0f}s",
        "it is stuck before it accepts them, or has no CPU core: see top and its log, then "
        "restart it",
    )


def asleep(level: str) -> Condition:
    """The engine was put to sleep. level: the sleep level that it reports, "" when none."""
    told = f" ({level})" if level else ""
    return Condition(
        Name.ASLEEP,
        f"asleep{told}: it serves nothing until it is woken",
        "wake it with POST /wake_up",
    )


def several_servers() -> Condition:
    """Different processes answer in turn: a load balancer spreads over several replicas."""
    return Condition(
        Name.SEVERAL_SERVERS,
        "several servers answer in turn at this address, so no rate can be computed",
        "give the address of one of them",
    )


def router(what: str) -> Condition:
    """The page belongs to a router or gateway in front of engines."""
    return Condition(
        Name.ROUTER,
        f"this is the page of a router ({what}), not of an engine",
        "give the address of an engine behind it",
    )


def no_metrics(title: str, path: str, remedy: str) -> Condition:
    """The engine answers without metrics. remedy: how to enable them."""
    return Condition(
        Name.NO_METRICS,
        f"no metrics: {title} reports no numbers at {path}",
        remedy or "see its log",
    )


def unknown_engine(series: str) -> Condition:
    """The page has numbers of another engine. series: the name of one of them."""
    what, hint = UNKNOWN_ENGINE
    return Condition(Name.NO_METRICS, f"{what}: {series[:_NAME_CHARS]}", hint)


def needs_key(*, given: bool) -> Condition:
    """The engine refuses requests without an API key. given: a wrong key was sent.

    SGLang may have two keys: one for requests and one for its administration.
    """
    how = "does not take this API key" if given else "needs an API key"
    return Condition(Name.NEEDS_KEY, how, f"put its API key in the variable {KEY}")


def old_version(title: str, version: str, oldest: str) -> Condition:
    """The engine is older than the oldest version that the adapter supports."""
    return Condition(
        Name.OLD_VERSION,
        f"{title} {version} is older than {oldest}, the oldest that llmtop reads",
        "use a newer version; what this one reports under unknown names is not shown",
    )


def renamed_series(found: Mapping[str, str]) -> Condition:
    """Numbers are read from series with other names. found: their names by the engine's names."""
    pairs = [f"{other[:_NAME_CHARS]} for {own[:_NAME_CHARS]}" for own, other in found.items()]
    return Condition(
        Name.RENAMED_SERIES,
        f"some numbers have other names: {_listed(pairs, 3 * _NAME_CHARS)}",
        "another engine version, or a collector that renames series; missing numbers are unknown",
    )


def missing_totals(missing: Sequence[str], instead: Sequence[str]) -> Condition:
    """Counters are missing on the page. instead: the names that are read in their place."""
    read = f"; read from {_listed(instead)}" if instead else ": rates are unknown"
    return Condition(
        Name.MISSING_TOTALS,
        f"totals are missing: no {_listed(missing)}{read}",
        "a collector between drops or renames counters; scrape the engine itself",
    )


def several_models(models: Sequence[str]) -> Condition:
    """One page has the numbers of several models. llmtop sums them."""
    return Condition(
        Name.SEVERAL_MODELS,
        f"{len(models)} models on one page are added up: {_listed(models)}",
        "give the address of the engine of one model",
    )


def uneven_ranks(mean: float, fullest: float) -> Condition:
    """The KV cache of one data-parallel rank is much fuller than the mean (shares, 0..1)."""
    return Condition(
        Name.UNEVEN_RANKS,
        f"KV cache {mean:.0%}, fullest rank {fullest:.0%}",
        "the router does not balance requests by KV cache use: check it",
    )


def _listed(names: Sequence[str], chars: int = _NAME_CHARS) -> str:
    shown = [name[:chars] for name in names[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
