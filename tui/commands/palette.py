"""The entries of the command palette and the search in them. Pure: no widgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

Run = Callable[[], object]


class Entry(Struct, frozen=True):
    """One line of the palette.

    title: what it does; the search reads it. run: executes it. key: the key with the same effect,
    "" for none. note: more words, which the search reads too. text: the text to continue typing,
    if a value is still missing; else "".
    """

    title: str
    run: Run
    key: str = ""
    note: str = ""
    text: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be executed without more typing."""
        return not self.text


def matching(entries: Sequence[Entry], typed: str) -> list[Entry]:
    """The entries that contain every typed word, best match first; all entries for an empty text.

    The ranking: the title starts with the text; then each typed word starts a word of the title;
    then each is somewhere in the title; then each is in title or note.
    """
    words = typed.lower().split()
    if not words:
        return list(entries)
    found = []
    for number, entry in enumerate(entries):
        title, rest = entry.title.lower(), f"{entry.title} {entry.note}".lower()
        if all(word in rest for word in words):
            in_title = all(word in title for word in words)
            starts = all(any(part.startswith(word) for part in title.split()) for word in words)
            rank = (not title.startswith(" ".join(words)), not starts, not in_title)
            found.append((rank, number, entry))
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]
