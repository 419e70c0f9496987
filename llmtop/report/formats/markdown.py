"""Writes a report as Markdown, for a pull request or a wiki, and its tables as CSV."""

from __future__ import annotations

import csv
import io
import re

from llmtop.report.document import Report, Section, Table
from llmtop.wording.format import ABSENT

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~&])")
# A spreadsheet reads a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t")
_NUMBER = re.compile(r"[-+]?[\d.,]+(?:e[-+]?\d+)?(?: ?%)?")


def markdown(report: Report, made: str) -> str:
    """The report with the description of each chart in place of the chart."""
    parts = [f"# {plain(report.title)}", f"**{plain(report.answer)}**"]
    if report.cautions:
        parts.append("\n".join(f"- {plain(one)}" for one in report.cautions))
    for section in report.sections:
        parts += _section(section)
    parts.append(f"Made by llmtop, {plain(made)}.")
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """The text with all characters escaped that Markdown would interpret."""
    return _SPECIAL.sub(r"\\\1", text)


def rows(report: Report) -> str:
    """All tables as CSV, one after another, each under its section and caption."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for section in report.sections:
        for table in section.tables:
            writer.writerow([_cell(section.title), _cell(table.caption)])
            writer.writerow([_cell(name) for name in table.columns])
            writer.writerows([_cell(text) for text in row] for row in table.rows)
            writer.writerow([])
    return out.getvalue()


def _cell(text: str) -> str:
    """The text of a cell, with an apostrophe before one that a spreadsheet would run as a formula.
    Numbers keep their sign."""
    harmless = text == ABSENT or not text.startswith(_FORMULA) or _NUMBER.fullmatch(text)
    return text if harmless else f"'{text}"


def _section(section: Section) -> list[str]:
    parts = [f"## {plain(section.title)}", *map(plain, section.paragraphs)]
    if section.code:
        fence = "`" * (2 + max((len(run) for run in re.findall("`+", section.code)), default=1))
        parts.append(f"{fence}\n{section.code}\n{fence}" if len(fence) > 2 else section.code)
    if section.facts:
        parts.append("\n".join(f"- {plain(name)}: {plain(value)}" for name, value in section.facts))
    parts += [f"{plain(one.title)}. {plain(one.description)}" for one in section.charts]
    parts += [_table(one) for one in section.tables]
    return parts


def _table(table: Table) -> str:
    marks = ["---:" if column in table.numeric else "---" for column in range(len(table.columns))]
    lines = [_row(table.columns), "| " + " | ".join(marks) + " |"]
    lines += [_row(row) for row in table.rows]
    return f"{plain(table.caption)}\n\n" + "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(plain(text) for text in cells) + " |"
