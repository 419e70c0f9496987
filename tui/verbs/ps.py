"""``llmtop ps``: the engines that llmtop started, and how they are."""

from __future__ import annotations

from typing import Any

import click

from llmtop.engines.records import EngineStatus
from llmtop.tui.verbs.output import document, json_flag, note, table
from llmtop.tui.words import left_words


def detail(status: EngineStatus) -> str:
    """What there is to add to its state."""
    words = (status.phase, left_words(status.record.name, status.left))
    return "; ".join(word for word in words if word)


def entry(status: EngineStatus) -> dict[str, Any]:
    """One engine as ``ps --json`` shows it. docs/json.md describes the fields."""
    record = status.record
    return {
        "name": record.name,
        "engine": record.spec.kind,
        "version": record.version,
        "state": status.state.value,
        "detail": detail(status) or record.cause or "",
        "pid": record.pid,
        "host": record.spec.host,
        "port": record.spec.port,
        "url": record.url,
        "model": record.spec.model,
        "simulated": record.simulated,
        "started_at": record.started_at,
        "ready_at": record.ready_at,
        "ended_at": record.ended_at,
        "log_path": record.log_path,
    }


@click.command()
@json_flag
def command(as_json: bool) -> None:
    """List the engines that llmtop started, whichever terminal they were started from."""
    from llmtop.tui.format import duration
    from llmtop.tui.wiring import Wiring

    wiring = Wiring()
    supervisor = wiring.supervisor
    statuses = [wiring.status(record) for record in supervisor.records()]
    for problem in supervisor.problems():
        note(f"llmtop: {problem.message}; {problem.hint}")
    if as_json:
        document({"engines": [entry(status) for status in statuses]})
        return
    if not statuses:
        note("no engines; `llmtop demo` starts a simulated one, `llmtop run vllm MODEL` a real one")
        return
    rows = []
    for status in statuses:
        record = status.record
        age = duration(wiring.age_s(record))
        kind = record.spec.kind + (" (simulated)" if record.simulated else "")
        row = [record.name, kind, status.state.value, str(record.pid), record.url]
        rows.append([*row, record.spec.model, age, detail(status)])
    table(["NAME", "ENGINE", "STATE", "PID", "URL", "MODEL", "AGE", ""], rows)
