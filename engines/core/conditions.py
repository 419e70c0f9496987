"""What is wrong with an engine as it is seen from outside, each with what to do about it.

One list for the dashboard, ``attach`` and ``once``. A condition is a finding of what the engine's
own pages show, not a guess at why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

# Longer than one step of an engine takes, and than SGLang's reports are apart: once in 40 decode
# steps by default, which is 8 s at five steps a second. A beat later it is known, within 10 s.
HUNG_S = 8.0
# Apart by so much, the fullest rank is worth a word beside the mean: a rank that is full queues and
# preempts while the mean looks calm.
UNEVEN = 0.2
_SHOWN = 3  # names in a list
_NAME_CHARS = 60

KEY = "LLMTOP_API_KEY"
UNKNOWN_ENGINE = (
    "these are metrics of an engine that llmtop does not know",
    "it knows vLLM, SGLang and TensorRT-LLM; check host and port",
)


class Name(StrEnum):
    """Which finding it is: the same word in JSON and in tests. The gravest first."""

    NEEDS_KEY = "needs_key"  # it answers 401 or 403
    FROZEN = "frozen"  # a signal holds its process, or its server does not answer
    HUNG = "hung"  # requests run and no number moves
    ASLEEP = "asleep"  # it holds no weights just now
    SEVERAL_SERVERS = "several_servers"  # answer at this one address
    ROUTER = "router"  # the page is that of a router or gateway in front of engines
    NO_METRICS = "no_metrics"  # it answers, and has no numbers
    OLD_VERSION = "old_version"  # older than what llmtop reads
    RENAMED_SERIES = "renamed_series"  # the numbers stand under other names
    MISSING_TOTALS = "missing_totals"  # counters of tokens are not there under their names
    SEVERAL_MODELS = "several_models"  # on one page, added up
    UNEVEN_RANKS = "uneven_ranks"  # one rank is far fuller than the mean
    IMPOSSIBLE = "impossible_values"  # numbers that no engine can have


# With one of these its numbers are of no use: nothing moves them.
STALE = frozenset({Name.FROZEN, Name.HUNG})


class Condition(Struct, frozen=True):
    """One finding. message: what is so, in one sentence. hint: what to do about it."""

    name: Name
    message: str
    hint: str


def gravest_first(found: Sequence[Condition]) -> tuple[Condition, ...]:
    """Each finding once, in the order of ``Name``. A router's page shows neither a
    hung engine nor a lost total."""
    if len(found) < 2:
        return tuple(found)
    order = list(Name)
    first = {one.name: one for one in reversed(found)}
    if Name.ROUTER in first:
        # Its requests are those of engines elsewhere, and it need not report what moves there.
        for name in (Name.HUNG, Name.MISSING_TOTALS):
            first.pop(name, None)
    return tuple(sorted(first.values(), key=lambda one: order.index(one.name)))


def frozen(why: str) -> Condition:
    """An engine of llmtop's own is alive and does not answer. why: what is known of that."""
    return Condition(
        Name.FROZEN,
        f"stale: {why or 'it does not answer'}",
        "kill -CONT continues a stopped process; otherwise restart it",
    )


def hung(running: int | None, waiting: int | None, still_s: float) -> Condition:
    """Requests run or wait, and nothing that the engine reports has moved for ``still_s``."""
    parts = [f"{running:,} running"] if running else []
    parts += [f"{waiting:,} waiting"] if waiting else []
    return Condition(
        Name.HUNG,
        f"hung: {', '.join(parts)}, no number has moved for {still_s:.0f}s; all are stale",
        "it is stuck, paused, without a CPU core, or in one very long step: see top and its log, "
        "then restart it",
    )


def unanswered(in_flight: int, still_s: float) -> Condition:
    """Our own requests are in flight, the engine says that it runs none, and nothing moves."""
    return Condition(
        Name.HUNG,
        f"hung: {in_flight:,} requests of this load are in flight, the engine reports none, and no "
        f"number has moved for {still_s:.0f}s",
        "it is stuck before it accepts them, or has no CPU core: see top and its log, then "
        "restart it",
    )


def asleep(level: str) -> Condition:
    """The engine was put to sleep. level: what it says of that, "" when nothing."""
    told = f" ({level})" if level else ""
    return Condition(
        Name.ASLEEP,
        f"asleep{told}: it serves nothing until it is woken",
        "wake it with POST /wake_up",
    )


def several_servers() -> Condition:
    """Different processes answer by turns: a balancer stands before several replicas."""
    return Condition(
        Name.SEVERAL_SERVERS,
        "several servers answer in turn at this address, so no rate can be computed",
        "give the address of one of them",
    )


def router(what: str) -> Condition:
    """The page belongs to something in front of engines."""
    return Condition(
        Name.ROUTER,
        f"this is the page of a router ({what}), not of an engine",
        "give the address of an engine behind it",
    )


def no_metrics(title: str, path: str, remedy: str) -> Condition:
    """The engine answers and reports none of its numbers. remedy: how it comes to do so."""
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
    """The engine refuses to answer without a key. given: one was sent, and it is not the right one.

    SGLang may have two: one for requests and one for its administration.
    """
    how = "does not take this API key" if given else "needs an API key"
    return Condition(Name.NEEDS_KEY, how, f"put its API key in the variable {KEY}")


def old_version(title: str, version: str, oldest: str) -> Condition:
    """The engine is older than the oldest that the adapter was built for."""
    return Condition(
        Name.OLD_VERSION,
        f"{title} {version} is older than {oldest}, the oldest that llmtop reads",
        "use a newer version; what this one reports under unknown names is not shown",
    )


def renamed_series(found: Mapping[str, str]) -> Condition:
    """Numbers are read from other names than the engine's own. found: by the engine's own name."""
    pairs = [f"{other[:_NAME_CHARS]} for {own[:_NAME_CHARS]}" for own, other in found.items()]
    return Condition(
        Name.RENAMED_SERIES,
        f"some numbers have other names: {_listed(pairs, 3 * _NAME_CHARS)}",
        "another version of the engine, or a collector that renames; what is not found is unknown",
    )


def missing_totals(missing: Sequence[str], instead: Sequence[str]) -> Condition:
    """Counters are not on the page. instead: the names that are read in their place."""
    read = f"; read from {_listed(instead)}" if instead else ": rates are unknown"
    return Condition(
        Name.MISSING_TOTALS,
        f"totals are missing: no {_listed(missing)}{read}",
        "a collector between drops or renames counters; scrape the engine itself",
    )


def several_models(models: Sequence[str]) -> Condition:
    """One page has the numbers of several models, and they are added up."""
    return Condition(
        Name.SEVERAL_MODELS,
        f"{len(models)} models on one page are added up: {_listed(models)}",
        "give the address of the engine of one model",
    )


def uneven_ranks(mean: float, fullest: float) -> Condition:
    """One data-parallel rank is far fuller than the mean of all (shares, 0..1)."""
    return Condition(
        Name.UNEVEN_RANKS,
        f"KV cache {mean:.0%}, fullest rank {fullest:.0%}",
        "requests are not spread over the ranks by how full they are: check the router",
    )


def _listed(names: Sequence[str], chars: int = _NAME_CHARS) -> str:
    shown = [name[:chars] for name in names[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
