"""The requests inside an engine as a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.core.requests import RequestRow, RequestTable
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.wording import format as f

ROLES = {"decode": "tokens", "prefill": "prefill", "waiting": "waiting", "preempted": "warn"}
HEADS = ("state", "age", "wait/TTFT", "prompt (cached)", "out/limit", "KV blocks", "preempt")
WIDTHS = (11, 8, 11, 18, 15, 11, 9)
SMALL = (0, 1, 2, 4, 5)  # the columns that are shown in less than ``ROOMY`` cells
ROOMY = 100
LEAST_ID = 12  # cells of an id
LAST_OF_ID = 6  # characters of its end, which a cut keeps


def state_word(row: RequestRow) -> str:
    """The state of a request in one word."""
    return (row.phase or "running") if row.state == "running" else row.state


def matches(row: RequestRow, text: str) -> bool:
    """Whether the id or the state of a row contains ``text``."""
    return not text or text in row.id or text in state_word(row)


def table_rows(
    rows: Sequence[RequestRow], cursor: int, top: int, height: int, view: View, width: int
) -> list[Row]:
    """A header and the rows from ``top`` on; the one at ``cursor`` is marked."""
    columns = range(len(HEADS)) if width >= ROOMY else SMALL
    ident = max(LEAST_ID, width - sum(WIDTHS[column] for column in columns) - 2)
    head = "  " + "id".ljust(ident) + "".join(_head(column) for column in columns)
    out: list[Row] = [fit([(head, MUTED)], width)]
    for number, row in enumerate(rows[top : top + height - 1], top):
        chosen = number == cursor
        cells = _cells(row, view)
        spans: list[Span] = [(f"{view.glyphs.cursor if chosen else ' '} ", "key")]
        name = _short_id(f.clean(row.id, 200), ident - 1).ljust(ident)
        spans.append((name, STRONG if chosen else TEXT))
        for column in columns:
            text, role = cells[column]
            text = text.ljust(WIDTHS[0]) if column == 0 else text.rjust(WIDTHS[column])
            spans.append((text, role))
        out.append(fit(spans, width))
    return out


def _short_id(ident: str, cells: int) -> str:
    """An id, cut in the middle if needed: ids of one client differ at their ends."""
    if len(ident) <= cells:
        return shorten(ident, cells)
    return f"{shorten(ident, cells - LAST_OF_ID)}{ident[-LAST_OF_ID:]}"


def _head(column: int) -> str:
    return HEADS[column].ljust(WIDTHS[0]) if column == 0 else HEADS[column].rjust(WIDTHS[column])


def _cells(row: RequestRow, view: View) -> list[Span]:
    word = state_word(row)
    first = row.ttft_s if row.ttft_s is not None else row.waited_s
    cached = f" ({f.count(row.cached_tokens)})" if row.cached_tokens is not None else ""
    return [
        (word, ROLES.get(word, TEXT)),
        (f.latency(row.age_s), TEXT),
        (f.latency(first), TEXT if row.ttft_s is not None else "waiting"),
        (f"{f.count(row.prompt_tokens)}{cached}", TEXT),
        (f"{f.count(row.generated_tokens)}/{f.count(row.max_tokens)}", TEXT),
        (f.count(row.kv_blocks), TEXT),
        (f.count(row.preemptions), "warn" if row.preemptions else MUTED),
    ]


def detail_rows(row: RequestRow, width: int) -> list[Row]:
    """All that is known of one request."""
    facts = (
        ("id", f.clean(row.id, 200)),
        ("rank", str(row.rank)),
        ("state", f"{row.state}{f', {row.phase}' if row.phase else ''}"),
        ("age", f.latency(row.age_s)),
        ("waited in the queue", f.latency(row.waited_s)),
        ("TTFT", f.latency(row.ttft_s)),
        ("prompt tokens", f"{f.count(row.prompt_tokens)}, cached {f.count(row.cached_tokens)}"),
        ("output tokens", f"{f.count(row.generated_tokens)} of at most {f.count(row.max_tokens)}"),
        ("KV blocks", f.count(row.kv_blocks)),
        ("preemptions", f.count(row.preemptions)),
        ("priority", f.count(row.priority)),
    )
    return [
        fit([(f"  {name}".ljust(24), MUTED), (shorten(value, width - 25), TEXT)], width)
        for name, value in facts
    ]


def total_words(table: RequestTable) -> str:
    """The number of requests, and how many of them are listed."""
    listed = len(table.rows)
    total = table.running + table.waiting
    words = f"running {table.running:,}  waiting {table.waiting:,}"
    return f"{words}  the first {listed} of {total:,}" if listed < total else words
