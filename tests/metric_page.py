"""A page of metrics as a test writes it."""

from __future__ import annotations

from llmtop.engines.metrics.exposition import Exposition, Parser


def parse(text: str, prefixes: tuple[str, ...]) -> Exposition:
    """The series of one page."""
    return Parser(prefixes).parse(text)
