"""Parses changes of options, ``max_num_seqs=64``, and formats their outcomes."""

from __future__ import annotations

from typing import Any

from llmtop import UsageError
from llmtop.cli.common.output import note
from llmtop.cli.options.options import shown
from llmtop.engines.core.options import Change
from llmtop.wording.outcomes import before_words, evicted_words, outcome_words


def entry(change: Change) -> dict[str, Any]:
    """One change as ``set --json`` shows it."""
    return {
        "option": change.option,
        "from": change.before,
        "to": change.after,
        "outcome": change.outcome.value,
        "reason": change.reason,
        "ack_ms": change.ack_ms,
        "evicted": change.evicted,
        "note": change.note or None,
        "ranks": [
            {
                "rank": one.rank,
                "from": one.before,
                "outcome": one.outcome.value if one.outcome else None,
                "reason": one.reason,
                "evicted": one.evicted,
            }
            for one in change.ranks
        ],
    }


def distinct(pairs: tuple[str, ...]) -> dict[str, str]:
    """Each option's text; UsageError when one is given twice, since only one can be meant."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, text = split(pair)
        if name in found:
            raise UsageError(f"{name} is given twice", "give it once")
        found[name] = text
    return found


def split(pair: str) -> tuple[str, str]:
    """``max_num_seqs=64`` as name and text. Flags spelled with dashes are understood too."""
    name, equals, text = pair.partition("=")
    if not equals or not name or not text:
        raise UsageError(f"{pair!r} is not a change", "write it as max_num_seqs=64")
    return name.strip().lstrip("-").replace("-", "_"), text


def say(change: Change, *, as_json: bool) -> None:
    """One change in words; beside a JSON document only one that was refused."""
    before, after = before_words(change) or shown(change.before), shown(change.after)
    words = f"{change.option} {before} -> {after}: {outcome_words(change)}"
    if change.reason:
        words += f"; {change.reason}" if change.ranks else f", {change.reason}"
    elif change.ack_ms is not None:
        words += f" in {change.ack_ms:.0f} ms"
    if evicted := evicted_words(change):
        words += f", {evicted}"
    if change.failed:
        note(f"llmtop: {words}")
    elif not as_json:
        note(words)
    if change.note and not as_json:
        note(f"  note: {change.note}")
