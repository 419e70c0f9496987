"""Other names for commands: aliases that work, and suggestions for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# Names of the same command in other tools. They work.
ALIASES = {
    "list": "ps",
    "ls": "ps",
    "status": "ps",
    "engines": "ps",
    "kill": "stop",
    "log": "logs",
    "rm": "forget",
    "remove": "forget",
    "opts": "options",
}
# Names that may mean several commands, or nearly one, and what to type instead.
GUESSES = {
    "start": "`llmtop run ENGINE MODEL`, or `llmtop restart NAME` for one that is stopped",
    "serve": "`llmtop run ENGINE MODEL`",
    "launch": "`llmtop run ENGINE MODEL`",
    "top": "`llmtop` alone, which opens the dashboard",
    "dashboard": "`llmtop` alone, which opens the dashboard",
    "ui": "`llmtop` alone, which opens the dashboard",
    "tui": "`llmtop` alone, which opens the dashboard",
    "monitor": "`llmtop` alone, or `llmtop attach URL`",
    "connect": "`llmtop attach URL`",
    "bench": "`llmtop load`, `llmtop saturate` or `llmtop compare`",
    "benchmark": "`llmtop load`, `llmtop saturate` or `llmtop compare`",
    "perf": "`llmtop load`, `llmtop saturate` or `llmtop compare`",
    "test": "`llmtop load NAME`, or `llmtop doctor` for this machine",
    "optimize": "`llmtop tune NAME --slo ttft=1s,tpot=50ms --rate 80`",
    "config": "`llmtop options NAME`, or `llmtop schema` for llmtop.toml",
    "get": "`llmtop options NAME`, or `llmtop once NAME`",
    "metrics": "`llmtop once NAME`",
    "stats": "`llmtop once NAME`",
    "tour": "`llmtop --tour NAME`, or `llmtop demo --tour`",
    "version": "`llmtop --version`",
    "install": "an engine is installed with pip, in an environment of its own; see `llmtop doctor`",
}
_NEAR = 0.6  # least similarity of a suggestion, 0..1, as in difflib


def meaning(word: str, commands: Collection[str]) -> str | None:
    """The command that a name or an alias means; None for an unknown name."""
    found = word if word in commands else ALIASES.get(word.lower(), word.lower())
    return found if found in commands else None


def guess(word: str, commands: Collection[str]) -> str:
    """Suggest a command for an unknown name; "" when no name is similar."""
    lower = word.lower()
    if lower in GUESSES:
        return f"did you mean {GUESSES[lower]}?"
    near = difflib.get_close_matches(lower, [*commands, *ALIASES, *GUESSES], n=1, cutoff=_NEAR)
    if not near:
        return ""
    if near[0] in GUESSES:
        return f"did you mean {GUESSES[near[0]]}?"
    return f"did you mean `llmtop {ALIASES.get(near[0], near[0])}`?"
