"""A small form: named values that are typed or chosen in place. No widget in here."""

from __future__ import annotations

from msgspec import Struct, field

from llmtop.tui.keys.line_editor import ERASING, edited
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.wording import format as f

LONGEST = 60  # characters of a value
MOVES = {"up": -1, "shift+tab": -1, "down": 1, "tab": 1}
TURNS = {"left": -1, "right": 1}


class Field(Struct):
    """One value. hint: shown under the cursor. choices: the allowed values; (): it is typed."""

    name: str
    text: str
    hint: str = ""
    choices: tuple[str, ...] = ()


class Form(Struct):
    """Fields and a cursor. at: the index of its field. message: shown instead of the hint."""

    fields: list[Field]
    at: int = 0
    fresh: bool = True  # the next character replaces the whole text
    message: str = ""
    role: str = MUTED
    changed: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> str:
        return self.find(name).text.strip()

    def find(self, name: str) -> Field:
        """The field called ``name``, which must exist."""
        return next(one for one in self.fields if one.name == name)

    def takes(self, key: str, character: str | None) -> bool:
        """Whether the form handles this key."""
        typed = character is not None and character.isprintable() and len(character) == 1
        return typed or key in MOVES or key in TURNS or key in ERASING

    def key(self, key: str, character: str | None) -> str | None:
        """Handle one key. Returns the name of the field that changed, None if none did."""
        self.message = ""
        here = self.fields[self.at]
        if key in MOVES:
            self.at = (self.at + MOVES[key]) % len(self.fields)
            self.fresh = True
            return None
        if here.choices:
            by = TURNS.get(key, 1 if character == " " else 0)
            if not by:
                return None
            where = here.choices.index(here.text) if here.text in here.choices else -1
            here.text = here.choices[(where + by) % len(here.choices)]
        else:
            line = edited(here.text, key, character, LONGEST, fresh=self.fresh)
            if line is None:
                return None
            here.text = line
        self.fresh = False
        self.changed.add(here.name)
        return here.name

    def show_message(self, words: str, role: str) -> None:
        """Show a message about the input, until the next key."""
        self.message, self.role = words, role


def form_rows(form: Form, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A row for each field, and one for the hint or the message. The cursor is always visible."""
    room = max(1, height - 1)
    first = max(0, min(form.at - room // 2, len(form.fields) - room))
    cells = max(len(one.name) for one in form.fields) + 3
    rows: list[Row] = []
    for number, one in enumerate(form.fields[first : first + room], first):
        here = number == form.at
        spans: list[Span] = [
            (f" {glyphs.cursor}" if here else "  ", "key"),
            (f" {one.name}".ljust(cells), STRONG if here else TEXT),
        ]
        text = f.clean(one.text, LONGEST)
        if here and one.choices:
            spans += [(f" {text} ".ljust(8), "edit"), ("  left right", "key"), (" choose", MUTED)]
        elif here:
            spans.append((f" {text}_ ".ljust(8), "edit"))
        else:
            spans.append((f" {text or f.ABSENT}", STRONG if one.name in form.changed else TEXT))
        rows.append(fit(spans, width))
    hint = form.fields[form.at].hint
    text, role = (form.message, form.role) if form.message else (hint, MUTED)
    rows.append(fit([("   ", TEXT), (shorten(text, width - 4), role)], width))
    return rows
