"""The options: their values now and at launch, how a change applies, and an editor."""

from __future__ import annotations

import textwrap

from textual.events import Click, Key, Paste
from textual.message import Message

from llmtop import UsageError
from llmtop.config.key_names import is_text
from llmtop.config.key_table import Place
from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.tui.keys.pasting import typed_line
from llmtop.tui.view.edit import Edit, editing_keys, frozen, wants_eviction
from llmtop.tui.view.effect_rows import ROOM, effect_rows
from llmtop.tui.view.elsewhere import short_reason
from llmtop.tui.view.option_words import hold_spans, left_changed, why_not
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import (
    MUTED,
    STRONG,
    TEXT,
    Row,
    Span,
    cell_len,
    fit,
    join,
    shorten,
    whole_parts,
)
from llmtop.wording import format as f
from llmtop.wording.outcomes import in_force


def _can_change(view: View) -> bool:
    """Whether options can be changed now."""
    return view.stage is LifecycleView.RUNNING and not view.readonly


VALUE = 7  # cells of a value
ROOMY = 50  # cells from which the table has the launch value and the bound


class OptionsPanel(Panel, can_focus=True):
    """A table. With the keyboard focus, it has a cursor, and an editor in the row itself.

    The charts stay visible beside it, so that the effect of a change is seen at once.
    """

    class Asked(Message):
        """A new value was entered for an option of the selected engine."""

        def __init__(self, option: str, value: OptionValue, evict: bool) -> None:
            super().__init__()
            self.option = option
            self.value = value
            self.evict = evict

    class Typed(Message):
        """A value is being typed. value: None while it is not valid, or nothing is typed."""

        def __init__(self, option: str, value: OptionValue) -> None:
            super().__init__()
            self.option = option
            self.value = value

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._posted: OptionValue = None  # the value of the last ``Typed``
        self.edit = Edit()
        self._first_visible = 0
        self._visible = 0  # the number of visible options

    def open(self, at: int = 0) -> None:
        """Take the keyboard focus at once: keys typed ahead must not reach the dashboard.

        at: the option under the cursor.
        """
        self.edit = Edit(at)
        self.screen.set_focus(self)

    def show_result(self, words: str, role: str) -> None:
        """Show the result of the last change in the lower border."""
        self.edit.message, self.edit.role = words, role
        self._show_again()

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The table in its box."""
        engine = view.engine
        options = engine.options if engine else ()
        lit = self.has_focus
        room, inner = height - 2, width - 2
        if not options:
            note = f.clean(why_not(engine), 100) if engine else ""
            empty: Row = ((f" {note or 'no option is known here'}", MUTED),)
            return frame([empty], width, height, view.glyphs, title="options", lit=lit)
        if view.elsewhere:
            closed = [fit([(f" {f.clean(one.name, 60)}", MUTED)], inner) for one in options[:room]]
            why: list[Span] = [(short_reason(view), MUTED)]
            return frame(closed, width, height, view.glyphs, title="options", foot=why)
        at = self.edit.at = max(0, min(self.edit.at, len(options) - 1))
        hint = self._hint(options[at], inner - 2, view) if lit and room > 2 else []
        hint = hint[: 2 if room > 5 else 1]
        block = self._effect(options[at], inner, room - len(hint) - 1, view) if lit else []
        if block and self.edit.text is None:
            hint = []
        extra = len(hint) + len(block)
        first = max(0, min(at - (room - extra) // 2, len(options) - (room - extra))) if lit else 0
        self._first_visible, self._visible = first, min(room - extra, len(options) - first)
        narrow = inner < ROOMY
        left = left_changed(engine)
        taken = (21 if left else 16) if narrow else 34
        name_cells = min(max(len(o.name) for o in options) + 1, inner - taken)
        body: list[Row] = []
        for number, option in enumerate(options[first : first + room - extra], first):
            here = lit and number == at
            body.append(self._line(option, view, inner, name_cells, here))
        body += [*block, *(((" ", TEXT), *spans) for spans in hint)]
        changed = sum(o.value != o.launch for o in options)
        head: list[Ranked] = [
            *hold_spans(engine),
            (1, [(f"{changed} changed since launch", "mark")] if changed else []),
            (
                0,
                [(view.keys.label("options"), "key"), (" to change", MUTED)]
                if not lit and _can_change(view)
                else [],
            ),
        ]
        message = shorten(f.clean(self.edit.message), max(0, inner - 6))
        note = f.clean(why_not(engine), 100) if engine and not message else ""
        foot: list[Span] = [(message, self.edit.role)] if message else []
        if left and not message:
            foot = [(shorten(left, max(0, inner - 6)), "warn")]
        elif note and not message:
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
        value = in_force(option, f.option)
        if option.pending is not None:
            value += f" {view.glyphs.arrow} {f.option(option.pending)}"
        differs = option.value != option.launch
        # A long name also uses the cells that a short value leaves.
        both, size = name_cells + VALUE, cell_len(value)
        name = shorten(f.clean(option.name, 60), max(name_cells - 1, both - size - 1))
        name = name.ljust(min(name_cells, max(0, both - size)))
        spans[1] = (name, spans[1][1])
        spans.append((value.rjust(both - cell_len(name)), "mark" if differs else STRONG))
        live = option.applies is not Applies.RESTART
        left = {one.option: one for one in status.left} if status else {}
        if option.name in left:  # an ended process left this temporary change
            was = f" {view.glyphs.up} was {f.option(left[option.name].before)}"
            spans.append((was.ljust(12) if cells >= ROOMY else was, "warn"))
            if cells < ROOMY:
                return tuple(spans)
        elif cells < ROOMY:
            spans.append((" live" if live else " restart", "good" if live else MUTED))
            return tuple(spans)
        else:
            limit = option.applies is Applies.LIVE_UP_TO_LAUNCH
            words = f"  {'of' if limit else 'was'} {f.option(option.launch)}" if differs else ""
            spans.append((words.ljust(11), MUTED))
        how = f.applies(option.applies, option.launch, startup)
        spans.append((f" {how}", "good" if live else MUTED))
        return tuple(spans)

    def _effect(self, option: Option, cells: int, most: int, view: View) -> list[Row]:
        """The expected effect of the typed value, and the measured one of a value that was set."""
        found, engine = view.store.effect, view.engine
        if found is None or engine is None or most < 1:
            return []
        if (found.question.engine, found.question.option) != (engine.name, option.name):
            return []
        return effect_rows(found, cells, min(most, ROOM), view.glyphs)

    def _post_typed(self, option: Option, value: OptionValue) -> None:
        """Post ``Typed`` if the value differs from the last one."""
        if value != self._posted:
            self._posted = value
            self.post_message(self.Typed(option.name, value))

    def _hint(self, option: Option, cells: int, view: View) -> list[list[Span]]:
        """The description of the option in at most two rows, or the keys while it is edited."""
        if self.edit.text is None:
            about = f"{option.spec.summary} {option.note}" if option.note else option.spec.summary
            about = whole_parts(f.clean(about, 400), 2 * cells - 10)  # a row ends with a word
            return [[(line, MUTED)] for line in textwrap.wrap(about, cells)]
        enter, back = ([(key, "key"), (f" {word}", MUTED)] for key, word in editing_keys(view))
        groups: list[Ranked] = [(0, enter)]
        if self.edit.evicts(option):
            words = " evict running requests: " if cells > 50 else " evict: "
            answer = "yes" if self.edit.evict else "no"
            evict = view.keys.label("options.evict")
            groups.append((1, [(evict, "key"), (words, MUTED), (answer, "warn")]))
        groups.append((2, back))
        groups.append((3, [(self.edit.bounds(option), MUTED)]))
        return [join(groups, cells)]

    def takes(self, key: str) -> bool:
        """Whether the panel handles this key while it has the keyboard focus."""
        if self.edit.text is None and self._keymap.command_of(Place.SCREEN, key) == "help":
            return False  # the help lists the keys of the options first
        return key not in ("tab", "shift+tab") and not key.startswith("ctrl+")

    @property
    def _keymap(self) -> Keymap:
        return self.view.keys if self.view is not None else DEFAULT

    def on_click(self, event: Click) -> None:
        """Move the cursor to the clicked row; edit the row if it has the cursor already."""
        view = self.view
        row = event.y - 1
        if view is None or view.stage is not LifecycleView.RUNNING or not 0 <= row < self._visible:
            return  # no row is visible of an instance behind Prometheus
        event.stop()
        options = view.engine.options if view.engine is not None else ()
        at = self._first_visible + row
        if not self.has_focus:
            self.open(at)
        elif self.edit.text is None and at == self.edit.at and at < len(options):
            self._start_change(options[at])
        elif self.edit.text is None:
            self.edit.move(at - self.edit.at, len(options))
        self._show_again()

    async def on_key(self, event: Key) -> None:
        """Handle the keys of the panel. None of them reaches the dashboard."""
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
        self._post_typed(option, self.edit.typed_value(option))
        self._show_again()

    def on_paste(self, event: Paste) -> None:
        """Type the first line of pasted text into the value."""
        event.stop()
        engine = self.view.engine if self.view else None
        if self.edit.text is not None and engine is not None and engine.options:
            option = engine.options[min(self.edit.at, len(engine.options) - 1)]
            for character in typed_line(event.text):
                self.edit.key(character, character, option)
            self._post_typed(option, self.edit.typed_value(option))
            self._show_again()

    def _choose(self, event: Key, option: Option, count: int) -> None:
        what = self._keymap.command_of(Place.OPTIONS, event.key)
        if what == "options.leave":
            self.screen.set_focus(None)
        elif what == "options.up":
            self.edit.move(-1, count)
        elif what == "options.down":
            self.edit.move(1, count)
        elif what == "options.change":
            self._start_change(option)

    def _start_change(self, option: Option) -> None:
        why = frozen(option, self.view)
        if why:
            self.edit.message, self.edit.role = why, "warn"
        elif option.spec.kind is bool:
            self._request_change(option, not option.value)
        else:
            self.edit.begin(option)

    def _type(self, event: Key, option: Option) -> None:
        what = self._keymap.command_of(Place.OPTIONS, event.key)
        if is_text(event.key) and what != "options.evict":
            what = None  # a character is typed
        if what == "options.leave":
            self.edit.cancel()
        elif what == "options.change":
            try:
                value = self.edit.value(option)
            except UsageError as error:
                hint = f": {error.hint}" if error.hint else ""
                self.edit.message, self.edit.role = error.message + hint, "bad"
                return
            self._request_change(option, value)
        elif what == "options.evict" and self.edit.evicts(option):
            self.edit.evict = not self.edit.evict
        else:
            arrow = {"options.up": "up", "options.down": "down"}.get(what or "", event.key)
            self.edit.key(arrow, event.character, option)

    def _request_change(self, option: Option, value: OptionValue) -> None:
        evict = self.edit.evict and wants_eviction(option, value)
        self.edit.cancel()
        self._posted = None  # the forecast of a value that is set stays
        if option.applies is not Applies.RESTART:  # a restart asks first
            self.edit.message, self.edit.role = f"{option.name}: asked for {f.option(value)}", MUTED
        self.post_message(self.Asked(option.name, value, evict))

    def _show_again(self) -> None:
        if self.view is not None:
            self.show(self.view)
