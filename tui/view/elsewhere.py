"""The commands that the dashboard of a remote instance does not support, and the reason.

The data of such an instance comes from a Prometheus, which has only numbers. Options, load, steps,
requests, the log and a hold need an llmtop on the engine's host.
"""

from __future__ import annotations

from llmtop.config.key_table import BY_ID
from llmtop.tui.view.view import View

# Command id -> the label beside its key.
CLOSED = {"options": "options", "load.more": "load"} | {
    name: BY_ID[name].short
    for name in ("steps", "requests", "engine.hold", "saturation", "compare", "tune", "log")
}


def short_reason(view: View) -> str:
    """The reason for a box, with the keys that open the instance through ssh."""
    return f"only through ssh: {_ssh_keys(view)}"


def long_reason(view: View) -> str:
    """The reason as sentences for a toast."""
    return (
        f"seen through a Prometheus: this needs llmtop on {view.elsewhere}."
        f" {_ssh_keys(view)} in the table opens it through ssh"
    )


def _ssh_keys(view: View) -> str:
    return f"{view.keys.label('quit')}, then {view.keys.label('fleet.ssh')}"
