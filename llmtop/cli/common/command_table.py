"""The table of commands: the folder of each command's module, and its line in ``llmtop --help``.

The lines are here, not in the modules, so that ``--help`` imports no command.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command. room: the folder of llmtop/cli that holds the module of the same name."""

    room: str
    summary: str


# The heading of each room in the help, in the order of the help.
HEADINGS = {
    "start": "Start engines and the dashboard",
    "engines": "Engines of this machine",
    "observe": "Inside an engine",
    "options": "Options of an engine",
    "load": "Load and measurements",
    "forecast": "Forecast, tuning, SLO",
    "recordings": "Results and recordings",
    "fleet": "Many machines, monitoring",
    "common": "Help and shell",
}


def by_heading() -> dict[str, dict[str, Entry]]:
    """The commands by heading, in the order of the table. Empty headings are left out."""
    found: dict[str, dict[str, Entry]] = {heading: {} for heading in HEADINGS.values()}
    for name, entry in COMMANDS.items():
        found[HEADINGS[entry.room]][name] = entry
    return {heading: entries for heading, entries in found.items() if entries}


# Within each room, in the order in which an operator uses them.
COMMANDS = {
    "demo": Entry("start", "Open the dashboard on a simulated engine under rising load."),
    "run": Entry("start", "Start an engine and open the dashboard on it (or --detach)."),
    "up": Entry("start", "Start the engines that llmtop.toml defines."),
    "down": Entry("start", "Stop the engines that llmtop.toml defines."),
    "attach": Entry("start", "Open the dashboard on engines at URLs that llmtop did not start."),
    "ps": Entry("engines", "List the engines that llmtop started."),
    "once": Entry("engines", "Print one sample of an engine's metrics."),
    "why": Entry("observe", "Explain what limits an engine, and which option would change it."),
    "steps": Entry("observe", "Print the last steps of an engine's scheduler."),
    "requests": Entry("observe", "Print the requests inside an engine."),
    "abort": Entry("observe", "End requests inside an engine, by their ids."),
    "options": Entry("options", "List an engine's options and how a change of each applies."),
    "set": Entry("options", "Change options of a running engine."),
    "restart": Entry(
        "options", "Restart an engine with other options; roll back if it does not start."
    ),
    "load": Entry("load", "Send load to an engine and report latency and throughput."),
    "calibrate": Entry("load", "Measure how much load this machine can send as a client."),
    "saturate": Entry("load", "Find the highest load within limits, and the peak throughput."),
    "compare": Entry("load", "Compare two settings of an engine, or two engines (A/B test)."),
    "forecast": Entry("forecast", "Forecast an engine under other options or another load."),
    "tune": Entry("forecast", "Find the best live settings for latency limits, by measuring."),
    "hold": Entry("forecast", "Keep an engine's latencies within limits, whatever its load."),
    "check": Entry("recordings", "Judge whether an engine is as good as a baseline (for CI)."),
    "record": Entry("recordings", "Record what an engine does into a file."),
    "replay": Entry("recordings", "Show a recording on the dashboard; no GPU is needed."),
    "report": Entry("recordings", "Write a report of saved results: HTML, Markdown, JSON or CSV."),
    "fleet": Entry("fleet", "Show all engines that a Prometheus scrapes."),
    "watch": Entry("fleet", "Report alerts without a screen, as llmtop.toml defines them."),
    "export": Entry("fleet", "Export metrics that engines do not publish, for a Prometheus."),
    "logs": Entry("engines", "Print an engine's log."),
    "stop": Entry("engines", "Stop engines and all processes that they started."),
    "forget": Entry("engines", "Remove the records and logs of engines that have ended."),
    "doctor": Entry("engines", "Check GPUs, engines, ports and folders; end orphaned processes."),
    "help": Entry("common", "Show this help, or the help of a command."),
    "schema": Entry("common", "Print the JSON schema of llmtop.toml or of saved requests."),
    "completion": Entry("common", "Print the completion script for bash, zsh or fish."),
    "man": Entry("common", "Print the manual page."),
}
