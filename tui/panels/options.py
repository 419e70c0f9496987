"""The options: what each is and was, how a change applies, and changing them in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.events import Click, Key, Paste
from textual.message import Message

from llmtop import UsageError
from llmtop.engines.options import Applies, Change, Option, OptionValue, Outcome
from llmtop.tui import format as f
from llmtop.tui.keymap import DEFAULT, Keymap, Place, is_text
from llmtop.tui.panels.edit import Edit, editing_keys, frozen, wants_eviction
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import Stage, View
from llmtop.tui.pasting import typed_line
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import (
    MUTED,
    STRONG,
    TEXT,
    Row,
    Span,
    cell_len,
    join,
    shorten,
    shorten_between,
)
from llmtop.tui.words import STATES, left_words

if TYPE_CHECKING:
    from llmtop.engines.restart import Restarted
    from llmtop.tui.store import EngineTrack


def _can(view: View) -> bool:
    """Whether options can be changed now."""
    return view.stage is Stage.RUNNING and not view.readonly


def _left(engine: EngineTrack | None) -> str:
    """What a killed comparison or tour left changed, "" as a rule."""
    if engine is None or engine.status is None:
        return ""
    return f.clean(left_words(engine.name, engine.status.left), 200)


VALUE = 7  # cells of a value
ROOMY = 50  # below, the launch value and the bound leave the table


class OptionsPanel(Panel, can_focus=True):
    """A table; with the keyboard in it, a cursor and an editor on the row itself.

    The charts go on beside it, so the effect of a change is seen with the hand on the knob.
    """

    class Asked(Message):
        """A new value was entered for an option of the selected engine."""

        def __init__(self, option: str, value: OptionValue, evict: bool) -> None:
            super().__init__()
            self.option = option
            self.value = value
            self.evict = evict

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.edit = Edit()
        self._first = self._seen = 0  # the options that are shown

    def open(self, at: int = 0) -> None:
        """Take the keyboard, at once: keys typed ahead must not reach the dashboard."""
        self.edit = Edit(at)
        self.screen.set_focus(self)

    def say(self, words: str, role: str) -> None:
        """Words in the lower border: what came of the last change."""
        self.edit.said, self.edit.role = words, role
        self._again()

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The table in its box."""
        engine = view.engine
        options = engine.options if engine else ()
        lit = self.has_focus
        room, inner = height - 2, width - 2
        if not options:
            note = f.clean(_note(engine), 100) if engine else ""
            empty: Row = ((f" {note or 'no option is known here'}", MUTED),)
            return frame([empty], width, height, view.glyphs, title="options", lit=lit)
        at = self.edit.at = max(0, min(self.edit.at, len(options) - 1))
        extra = 1 if lit and room > 2 else 0
        first = max(0, min(at - (room - extra) // 2, len(options) - (room - extra))) if lit else 0
        self._first, self._seen = first, min(room - extra, len(options) - first)
        narrow = inner < ROOMY
        left = _left(engine)
        taken = (21 if left else 16) if narrow else 34
        name_cells = min(max(len(o.name) for o in options) + 1, inner - taken)
        body: list[Row] = []
        for number, option in enumerate(options[first : first + room - extra], first):
            here = lit and number == at
            body.append(self._line(option, view, inner, name_cells, here))
        if extra:
            body.append(((" ", TEXT), *self._hint(options[at], inner - 2, view)))
        changed = sum(o.value != o.launch for o in options)
        head: list[Ranked] = [
            (1, [(f"{changed} changed since launch", "mark")] if changed else []),
            (
                0,
                [(view.keys.label("options"), "key"), (" to change", MUTED)]
                if not lit and _can(view)
                else [],
            ),
        ]
        said = shorten(f.clean(self.edit.said), max(0, inner - 6))
        note = f.clean(_note(engine), 100) if engine and not said else ""
        foot: list[Span] = [(said, self.edit.role)] if said else []
        if left and not said:
            foot = [(shorten(left, max(0, inner - 6)), "warn")]
        elif note and not said:
            foot = [(shorten(note, max(0, inner - 6)), MUTED)]
        return frame(
            body, width, height, view.glyphs, title="options", head=head, foot=foot, lit=lit
        )

    def _line(self, option: Option, view: View, cells: int, name_cells: int, here: bool) -> Row:
        engine = view.engine
        status = engine.status if engine else None
        startup = status.record.startup_s if status else None
        mark = f"{view.glyphs.cursor}" if here else " "
        name = shorten(f.clean(option.name, 60), name_cells - 1).ljust(name_cells)
        spans: list[Span] = [(mark, "key"), (name, STRONG if here else TEXT)]
        if here and self.edit.text is not None:
            spans.append((f"{f.clean(self.edit.text, 60)}_".ljust(8), "edit"))
            spans.append((f" was {f.option(option.value)}", MUTED))
            return tuple(spans)
        value = f.option(option.value)
        if option.pending is not None:
            value += f" {view.glyphs.arrow} {f.option(option.pending)}"
        differs = option.value != option.launch
        # A long name has the room that a short value leaves.
        both, size = name_cells + VALUE, cell_len(value)
        name = shorten(f.clean(option.name, 60), max(name_cells - 1, both - size - 1))
        name = name.ljust(min(name_cells, max(0, both - size)))
        spans[1] = (name, spans[1][1])
        spans.append((value.rjust(both - cell_len(name)), "mark" if differs else STRONG))
        live = option.applies is not Applies.RESTART
        left = {one.option: one for one in status.left} if status else {}
        if option.name in left:  # somebody who is gone has changed it, and did not mean it to stay
            was = f" {view.glyphs.up} was {f.option(left[option.name].before)}"
            spans.append((was.ljust(12) if cells >= ROOMY else was, "warn"))
            if cells < ROOMY:
                return tuple(spans)
        elif cells < ROOMY:
            spans.append((" live" if live else " restart", "good" if live else MUTED))
            return tuple(spans)
        else:
            of = f"  of {f.option(option.launch)}" if differs else ""
            spans.append((of.ljust(11), MUTED))
        how = f.applies(option.applies, option.launch, startup)
        spans.append((f" {how}", "good" if live else MUTED))
        return tuple(spans)

    def _hint(self, option: Option, cells: int, view: View) -> list[Span]:
        if self.edit.text is None:
            return [(shorten_between(f.clean(option.spec.summary, 200), cells), MUTED)]
        enter, back = ([(key, "key"), (f" {word}", MUTED)] for key, word in editing_keys(view))
        groups: list[Ranked] = [(0, enter)]
        if self.edit.evicts(option):
            words = " evict running requests: " if cells > 50 else " evict: "
            answer = "yes" if self.edit.evict else "no"
            evict = view.keys.label("options.evict")
            groups.append((1, [(evict, "key"), (words, MUTED), (answer, "warn")]))
        groups.append((2, back))
        groups.append((3, [(self.edit.bounds(option), MUTED)]))
        return join(groups, cells)

    def takes(self, key: str) -> bool:
        """Whether a key is the panel's own while it has the keyboard."""
        return key not in ("tab", "shift+tab") and not key.startswith("ctrl+")

    @property
    def _keymap(self) -> Keymap:
        return self.view.keys if self.view is not None else DEFAULT

    def on_click(self, event: Click) -> None:
        """A row takes the cursor; the row that has it is changed, as by its key."""
        view = self.view
        row = event.y - 1
        if view is None or view.stage is not Stage.RUNNING or not 0 <= row < self._seen:
            return
        event.stop()
        options = view.engine.options if view.engine is not None else ()
        at = self._first + row
        if not self.has_focus:
            self.open(at)
        elif self.edit.text is None and at == self.edit.at and at < len(options):
            self._begin(options[at])
        elif self.edit.text is None:
            self.edit.move(at - self.edit.at, len(options))
        self._again()

    async def on_key(self, event: Key) -> None:
        """The keys of the panel; nothing that is typed here reaches the dashboard's keys."""
        engine = self.view.engine if self.view else None
        if not self.takes(event.key):
            return
        event.stop()
        event.prevent_default()
        options = engine.options if engine else ()
        if not options:
            self.screen.set_focus(None)
            return
        option = options[min(self.edit.at, len(options) - 1)]
        if self.edit.text is None:
            self._choose(event, option, len(options))
        else:
            self._type(event, option)
        self._again()

    def on_paste(self, event: Paste) -> None:
        """Pasted text is typed into the value, its first line."""
        event.stop()
        engine = self.view.engine if self.view else None
        if self.edit.text is not None and engine is not None and engine.options:
            option = engine.options[min(self.edit.at, len(engine.options) - 1)]
            for character in typed_line(event.text):
                self.edit.key(character, character, option)
            self._again()

    def _choose(self, event: Key, option: Option, count: int) -> None:
        what = self._keymap.meant(Place.OPTIONS, event.key)
        if what == "options.leave":
            self.screen.set_focus(None)
        elif what == "options.up":
            self.edit.move(-1, count)
        elif what == "options.down":
            self.edit.move(1, count)
        elif what == "options.change":
            self._begin(option)

    def _begin(self, option: Option) -> None:
        why = frozen(option, self.view)
        if why:
            self.edit.said, self.edit.role = why, "warn"
        elif option.spec.kind is bool:
            self._ask(option, not option.value)
        else:
            self.edit.begin(option)

    def _type(self, event: Key, option: Option) -> None:
        what = self._keymap.meant(Place.OPTIONS, event.key)
        if is_text(event.key) and what != "options.evict":
            what = None  # a character is typed
        if what == "options.leave":
            self.edit.cancel()
        elif what == "options.change":
            try:
                value = self.edit.value(option)
            except UsageError as error:
                hint = f": {error.hint}" if error.hint else ""
                self.edit.said, self.edit.role = error.message + hint, "bad"
                return
            self._ask(option, value)
        elif what == "options.evict" and self.edit.evicts(option):
            self.edit.evict = not self.edit.evict
        else:
            arrow = {"options.up": "up", "options.down": "down"}.get(what or "", event.key)
            self.edit.key(arrow, event.character, option)

    def _ask(self, option: Option, value: OptionValue) -> None:
        evict = self.edit.evict and wants_eviction(option, value)
        self.edit.cancel()
        if option.applies is not Applies.RESTART:  # that asks first
            self.edit.said, self.edit.role = f"{option.name}: asked for {f.option(value)}", MUTED
        self.post_message(self.Asked(option.name, value, evict))

    def _again(self) -> None:
        if self.view is not None:
            self.show(self.view)


def _note(engine: EngineTrack) -> str:
    """Why nothing can be changed as it runs; of one that has ended not what its socket did."""
    status = engine.status
    if status is None or engine.runs:
        return engine.options_note
    return f"{engine.name} {STATES[status.state]}"


def answer_words(change: Change) -> tuple[str, str]:
    """What the engine said to a change, and its role."""
    name, value = f.clean(change.option, 60), f.option(change.after)
    if change.outcome is Outcome.REFUSED:
        return f"{name}: refused, {f.clean(change.reason or 'no reason given', 200)}", "bad"
    when = f" after {change.ack_ms:.0f} ms" if change.ack_ms is not None else ""
    evicted = f", {change.evicted} put back" if change.evicted else ""
    return f"{name} = {value}: {change.outcome.value}{when}{evicted}", "good"


def restarted_words(name: str, value: OptionValue, done: Restarted) -> tuple[str, str]:
    """What came of a restart, and its role."""
    if done.rolled_back:
        return f"rolled back: {f.clean(done.failure, 200)}", "bad"
    return f"{name} = {f.option(value)}: restarted in {f.duration(done.took_s)}", "good"
