"""Recordings of real engines that are installed with llmtop."""

from __future__ import annotations

from pathlib import Path

from llmtop import UsageError
from llmtop.history.recording_writer import SUFFIX

FOLDER = Path(__file__).parent / "examples"


def names() -> list[str]:
    """The names of the examples, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def locate(text: str) -> Path:
    """The path that ``text`` names: a file, or an example by its name.

    A text with a slash or the suffix of a recording is a path, whether or not the file exists.
    Raises UsageError for any other text that is neither.
    """
    path = Path(text)
    if path.suffix == SUFFIX or "/" in text or path.is_file():
        return path
    if text in names():
        return FOLDER / f"{text}{SUFFIX}"
    import difflib

    near = difflib.get_close_matches(text, names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"{text!r} is neither a file nor an example", f"{hint}llmtop replay --list shows them"
    )
