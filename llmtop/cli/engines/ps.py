"""``llmtop ps``: the engines that llmtop started, and their state."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llmtop.cli.common.output import document, json_flag, note, width
from llmtop.engines.core.records import EngineRecord, EngineStatus
from llmtop.wording.sentences import left_words

if TYPE_CHECKING:
    from llmtop.operations.slo.holders import HolderState

USUAL = 80  # columns if the width of the terminal is unknown
HEADS = ("NAME", "ENGINE", "STATE", "PID", "ADDRESS", "AGE", "MODEL")
BELOW = ("MODEL", "ENGINE")  # columns that move to a second line, in this order, to save width
INDENT = "    "


def detail(status: EngineStatus, holder: HolderState | None = None) -> str:
    """Details of its state: phase, changes left behind, holder. "" when there are none.

    holder: the ``llmtop hold`` that controls the engine.
    """
    words = (status.phase, left_words(status.record.name, status.left), held_words(holder))
    return "; ".join(word for word in words if word)


def held_words(holder: HolderState | None) -> str:
    """The holder, its SLO and its limits; "" without a holder."""
    if holder is None:
        return ""
    limits = ", ".join(f"{name} {value:,}" for name, value in holder.limits.items())
    how = f" ({holder.words})" if holder.words else ""
    pid = f"pid {holder.pid}"
    who = holder.who if pid in holder.who else f"{holder.who}, {pid}"
    return f"held for {holder.slo} by {who}{how}: {limits}"


def hold_entry(holder: HolderState | None) -> dict[str, Any] | None:
    """The holder as JSON; None without one."""
    if holder is None:
        return None
    return {
        "pid": holder.pid,
        "by": holder.who,
        "slo": holder.slo,
        "since": holder.since,
        "detached": holder.detached,
        "engaged": holder.engaged,
        "limits": dict(holder.limits),
        "own": dict(holder.own),
        "actions": holder.actions,
        "detail": holder.words,
    }


def entry(status: EngineStatus, holder: HolderState | None = None) -> dict[str, Any]:
    """One engine as ``ps --json`` prints it. docs/reference/json.md describes the fields."""
    record = status.record
    return {
        "name": record.name,
        "engine": record.spec.kind,
        "version": record.version,
        "state": status.state.value,
        "detail": detail(status, holder) or record.cause or "",
        "pid": record.pid,
        "host": record.spec.host,
        "port": record.spec.port,
        "url": record.url,
        "model": record.spec.model,
        "simulated": record.simulated,
        "started_at": record.started_at,
        "ready_at": record.ready_at,
        "ended_at": record.ended_at,
        "exit_code": record.exit_code,
        "cause": record.cause,
        "advice": record.advice or None,
        "log_excerpt": list(record.excerpt),
        "log_path": record.log_path,
        "hold": hold_entry(holder),
    }


def address(record: EngineRecord) -> str:
    """The address of its HTTP server in the form that ``attach`` accepts: ``:8000`` if local."""
    return record.url.removeprefix("http://").removeprefix("127.0.0.1")


def listing(rows: Sequence[tuple[Sequence[str], str]], columns: int, *, cut: bool) -> list[str]:
    """Format engines as lines. rows: the cells of HEADS, and text for the lines below them.

    columns: width in characters. cut: wrap or cut long lines; without it they stay whole, for a
    program that reads them.
    """
    heads, below = list(HEADS), []
    for name in BELOW:
        if sum(_widths(heads, rows)) + 2 * (len(heads) - 1) <= columns:
            break
        heads.remove(name)
        below.append(name)
    widths = _widths(heads, rows)
    lines = [_line(heads, widths)]
    for cells, added in rows:
        named = dict(zip(HEADS, cells, strict=True))
        lines.append(_line([named[head] for head in heads], widths))
        rest = ", ".join(named[head] for head in reversed(below))
        for words in filter(None, (rest, added)):
            lines += _wrapped(words, columns) if cut else [INDENT + words]
    return [_cut(line, columns) if cut else line for line in lines]


def _widths(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> list[int]:
    return [max(len(head), *(len(cells[HEADS.index(head)]) for cells, _ in rows)) for head in heads]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(cells, widths, strict=True)
    return "  ".join(cell.ljust(size) for cell, size in pairs).rstrip()


def _wrapped(words: str, columns: int) -> list[str]:
    return textwrap.wrap(
        words,
        columns,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


@click.command()
@json_flag
def command(as_json: bool) -> None:
    """List the engines that llmtop started, from all terminals.

    Engines that have ended stay in the list until `llmtop forget` removes them.
    """
    from llmtop.engines.host.safe_text import clean
    from llmtop.operations.slo.holders import holder_of
    from llmtop.operations.wiring import Wiring
    from llmtop.wording.format import duration

    wiring = Wiring()
    supervisor = wiring.supervisor
    statuses = [wiring.status(record) for record in supervisor.records()]
    holders = {
        status.record.name: holder_of(wiring.state.folder(status.record.name))
        for status in statuses
    }
    for problem in supervisor.problems():
        note(f"llmtop: {problem.message}; {problem.hint}")
    if as_json:
        document({"engines": [entry(one, holders[one.record.name]) for one in statuses]})
        return
    if not statuses:
        note("no engines; `llmtop demo` starts a simulated one, `llmtop run vllm MODEL` a real one")
        return
    rows = []
    for status in statuses:
        record = status.record
        kind = record.spec.kind + (" (simulated)" if record.simulated else "")
        age = duration(wiring.age_s(record))
        cells = [record.name, kind, status.state.value, str(record.pid)]
        cells += [address(record), age, record.spec.model]
        rows.append(([clean(cell) for cell in cells], clean(detail(status, holders[record.name]))))
    known = width()
    for line in listing(rows, known or USUAL, cut=known is not None):
        click.echo(line)
