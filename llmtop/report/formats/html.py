"""Writes a report as one self-contained HTML page.

The page has no script and needs no network. It follows the light or dark theme of the browser, and
prints on A4.
"""

from __future__ import annotations

from html import escape

from llmtop.report.document import Report, Section, Table
from llmtop.report.formats.charts import svg
from llmtop.report.formats.stylesheet import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Report, made: str) -> str:
    """The whole page. made: when it was made, in words."""
    drawn = 0
    parts = []
    for index, section in enumerate(report.sections):
        parts.append(_section(section, index, drawn))
        drawn += len(section.charts)
    contents = "".join(
        f'<li><a href="#s{index}">{escape(section.title)}</a></li>'
        for index, section in enumerate(report.sections)
    )
    cautions = "".join(f"<li>{escape(one)}</li>" for one in report.cautions)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(report.title)}</h1>\n<p class="answer">{escape(report.answer)}</p>\n'
        + (
            f'<section aria-label="Cautions" class="cautions"><ul>{cautions}</ul></section>\n'
            if cautions
            else ""
        )
        + f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>\n'
        + "\n".join(parts)
        + f"\n<footer><p>Made by llmtop, {escape(made)}.</p></footer>\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, index: int, drawn: int) -> str:
    parts = [f'<section id="s{index}">', f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(words)}</p>" for words in section.paragraphs]
    if section.code:
        parts.append(f'<pre tabindex="0"><code>{escape(section.code)}</code></pre>')
    if section.facts:
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in section.facts
        )
        parts.append(f"<dl>{rows}</dl>")
    for number, chart in enumerate(section.charts, drawn):
        parts.append(
            f"<figure>{svg(chart, number)}<figcaption>{escape(chart.title)}."
            f" {escape(chart.description)}</figcaption></figure>"
        )
    parts += [_table(one) for one in section.tables]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    def cell(text: str, column: int) -> str:
        kind = ' class="n"' if column in table.numeric else ""
        return (
            f'<th scope="row"{kind}>{escape(text)}</th>'
            if column == 0
            else f"<td{kind}>{escape(text)}</td>"
        )

    head = "".join(
        f'<th scope="col"{" class=n" if column in table.numeric else ""}>{escape(name)}</th>'
        for column, name in enumerate(table.columns)
    )
    body = "".join(
        "<tr>" + "".join(cell(text, column) for column, text in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
        f"<table><caption>{escape(table.caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
