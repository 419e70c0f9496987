"""What is not possible on the dashboard of an instance that is seen through a Prometheus, and why.

The Prometheus has numbers. Options, load, steps, requests, the log and a hold need an llmtop on the
host of the engine.
"""

from __future__ import annotations

from llmtop.config.key_table import BY_ID
from llmtop.tui.view.view import View

# Commands, and the words for them beside their keys.
CLOSED = {"options": "options", "load.more": "load"} | {
    name: BY_ID[name].short
    for name in ("steps", "requests", "engine.hold", "saturation", "compare", "tune", "log")
}


def short_reason(view: View) -> str:
    """The reason as it fits into a box, with the keys that lead there."""
    return f"only through ssh: {_way(view)}"


def long_reason(view: View) -> str:
    """The reason in a sentence, for a toast."""
    return (
        f"seen through a Prometheus: this needs llmtop on {view.elsewhere}."
        f" {_way(view)} in the table opens it through ssh"
    )


def _way(view: View) -> str:
    return f"{view.keys.label('quit')}, then {view.keys.label('fleet.ssh')}"
