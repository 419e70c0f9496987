"""Parses changes of options, such as ``max_num_seqs=64``, and prints their outcomes."""

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
    """Map each option to its text. Raises UsageError when an option is given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, text = split(pair)
        if name in found:
            raise UsageError(f"{name} is given twice", "give it once")
        found[name] = text
    return found


def split(pair: str) -> tuple[str, str]:
    """Split ``max_num_seqs=64`` into name and text. Accepts ``--max-num-seqs=64`` too.

    Raises UsageError for any other form.
    """
    name, equals, text = pair.partition("=")
    if not equals or not name or not text:
        raise UsageError(f"{pair!r} is not a change", "write it as max_num_seqs=64")
    return name.strip().lstrip("-").replace("-", "_"), text


def print_change(change: Change, *, as_json: bool) -> None:
    """Print a change on stderr. as_json: print only a change that failed."""
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
