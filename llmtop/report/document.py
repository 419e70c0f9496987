"""A report as plain values. Every output format is written from them."""

from __future__ import annotations

from msgspec import Struct


class Series(Struct, frozen=True):
    """One line of a chart. points: (x, y); y is None for a gap. spans: intervals as (x, low, high).

    role: the meaning of the line, which decides its style: ``main``, ``other``, ``limit``,
    ``rejected``, ``forecast``, ``change``, ``dots`` (points without a line), or ``run0`` to
    ``run3`` for the runs of a comparison.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]
    spans: tuple[tuple[float, float, float], ...] = ()
    role: str = "main"


class Chart(Struct, frozen=True):
    """One chart. description: its content in words, for readers who cannot see it."""

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    description: str
    logarithmic_x: bool = False


class Table(Struct, frozen=True):
    """A table of text. numeric: the positions of the columns that hold numbers."""

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
    """A whole report. answer: the result in one sentence. cautions: what limits the use of the
    result, one sentence each. made_at: unix seconds."""

    title: str
    answer: str
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    made_at: float
