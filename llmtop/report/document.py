"""A report as plain values: what every format is written from."""

from __future__ import annotations

from msgspec import Struct


class Series(Struct, frozen=True):
    """One line of a chart. points: (x, y), None for a gap. spans: (x, low, high), intervals.

    role: what it stands for, which decides its colour: ``main``, ``other``, ``limit``,
    ``rejected``, ``forecast``.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]
    spans: tuple[tuple[float, float, float], ...] = ()
    role: str = "main"


class Chart(Struct, frozen=True):
    """One drawing. description: what a reader who cannot see it must know."""

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    description: str
    logarithmic_x: bool = False


class Table(Struct, frozen=True):
    """Rows of text under columns. numeric: the columns that hold numbers, by position."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


class Section(Struct, frozen=True):
    """One part of a report under a heading. facts: (name, value) pairs. code: a command line."""

    title: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    code: str = ""


class Report(Struct, frozen=True):
    """A whole report. answer: the result in one sentence. cautions: what limits its use."""

    title: str
    answer: str
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    made_at: float
