"""What the palette offers, and what of it was meant. Pure: no widget in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

Run = Callable[[], object]


class Entry(Struct, frozen=True):
    """One line of the palette.

    title: what it does, also what is searched. key: the key that does the same, "" without one.
    note: more about it, searched too. text: what to go on typing, where a value is still missing.
    run: does it.
    """

    title: str
    run: Run
    key: str = ""
    note: str = ""
    text: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be done as it stands."""
        return not self.text


def matching(entries: Sequence[Entry], typed: str) -> list[Entry]:
    """The entries that have every typed word in them, the best ones first; all when none is typed.

    Best: the words begin the title, then words in it, then the beginnings of words, then anywhere.
    """
    words = typed.lower().split()
    if not words:
        return list(entries)
    found = []
    for number, entry in enumerate(entries):
        title, rest = entry.title.lower(), f"{entry.title} {entry.note}".lower()
        if all(word in rest for word in words):
            inside = all(word in title for word in words)
            begins = all(any(part.startswith(word) for part in title.split()) for word in words)
            rank = (not title.startswith(" ".join(words)), not begins, not inside)
            found.append((rank, number, entry))
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]
