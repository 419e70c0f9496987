"""The keys that edit a line of text, the same in every text field of llmtop."""

from __future__ import annotations

ERASING = ("backspace", "ctrl+u", "ctrl+w")


def edited(
    text: str, key: str, character: str | None, longest: int, *, fresh: bool = False
) -> str | None:
    """The line after a key: a character, or one of ``ERASING``. None if the key edits nothing.

    longest: the largest length, in characters. fresh: the line is still the old value; the first
    key replaces it.
    """
    if fresh and (key in ERASING or character):
        text = ""
    if key == "backspace":
        return text[:-1]
    if key == "ctrl+u":
        return ""
    if key == "ctrl+w":
        return text.rstrip().rpartition(" ")[0]
    if character and character.isprintable():
        return (text + character)[:longest]
    return None


def edited_filter(
    text: str, key: str, character: str | None, longest: int
) -> tuple[str, bool] | None:
    """The filter text after a key, and whether typing continues. None if the key edits nothing.

    Enter ends typing and keeps the text; escape ends it and clears the text.
    """
    if key == "enter":
        return text, False
    if key == "escape":
        return "", False
    line = edited(text, key, character, longest)
    return None if line is None else (line, True)
