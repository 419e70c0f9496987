"""Editing a line of text with keys."""

from __future__ import annotations

import pytest

from llmtop.tui.keys.line_editor import edited, edited_filter


@pytest.mark.parametrize(
    ("text", "key", "character", "fresh", "line"),
    [
        ("ab", "c", "c", False, "abc"),
        ("ab", "c", "c", True, "c"),
        ("ab", "backspace", "\x08", False, "a"),
        ("ab", "backspace", "\x08", True, ""),
        ("", "backspace", "\x08", False, ""),
        ("two words ", "ctrl+w", "\x17", False, "two"),
        ("two words", "ctrl+u", "\x15", False, ""),
        ("ab", "left", None, False, None),
        ("ab", "escape", "\x1b", True, None),
        ("abcde", "f", "f", False, "abcde"),
    ],
)
def test_what_a_key_makes_of_a_line(
    text: str, key: str, character: str | None, fresh: bool, line: str | None
) -> None:
    assert edited(text, key, character, 5 if len(text) == 5 else 60, fresh=fresh) == line


@pytest.mark.parametrize(
    ("key", "character", "after"),
    [
        ("c", "c", ("abc", True)),
        ("enter", "\r", ("ab", False)),
        ("escape", "\x1b", ("", False)),
        ("left", None, None),
    ],
)
def test_what_a_key_makes_of_a_filter(
    key: str, character: str | None, after: tuple[str, bool] | None
) -> None:
    assert edited_filter("ab", key, character, 60) == after
