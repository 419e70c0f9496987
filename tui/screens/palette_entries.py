"""The entries of the palette on this screen: commands, options, engines, loads, themes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from textual.screen import Screen

from llmtop import LlmtopError
from llmtop.config.key_table import BY_ID
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.loadgen.workload import shape as shapes
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan
from llmtop.tui.commands.palette import Entry, matching
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.edit import Edit, frozen
from llmtop.tui.view.view import LifecycleView, View
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.tui.commands.control import Control
    from llmtop.tui.screens.dashboard import Dashboard

OPEN_PALETTE = "palette"  # the command that opens the palette
RESTART_WITH = "restart with "
ASKING = " asking "  # between a shape and the name of its prompts


class Host(Protocol):
    """What the palette needs of the application."""

    ACTIONS: ClassVar[dict[str, str]]
    control: Control
    config: Config

    @property
    def dashboard(self) -> Dashboard:
        """The bottom screen, below all others."""

    @property
    def theme_names(self) -> list[str]:
        """The names of the themes."""

    def current_view(self) -> View:
        """The view of this moment."""

    def choose_theme(self, name: str) -> None:
        """Use the theme ``name``."""

    def save_picture(self) -> None:
        """Write the screen to an SVG file."""

    async def run_action(self, action: str, where: Any) -> object:
        """Run an action of ``where``: a screen or the application."""


def palette_entries(app: Host, here: Screen[Any], typed: str) -> list[Entry]:
    """The entries for the typed text. Those that use it as a value come first."""
    view = app.current_view()
    entries_with_value = list(_typed(app, view, typed)) if not view.readonly else []
    known = [*_commands(app, here, view), *_engines(app, view), *_themes(app)]
    if not view.readonly:
        known += [*_options(app, view, typed), *_loads(app, view)]
    titles = {entry.title for entry in entries_with_value}
    return [
        *entries_with_value,
        *(entry for entry in matching(known, typed) if entry.title not in titles),
    ]


def _commands(app: Host, here: Screen[Any], view: View) -> Iterator[Entry]:
    """The commands that have keys: first of the current screen, then of the dashboard."""
    screens: list[Screen[Any]] = [here] if here is app.dashboard else [here, app.dashboard]
    for screen in screens:
        actions: dict[str, str] = getattr(screen, "ACTIONS", {})
        for name, action in actions.items():
            if not (view.readonly and BY_ID[name].changes):
                yield _command(app, screen, name, action, view)
    for name, action in app.ACTIONS.items():
        if name not in (OPEN_PALETTE, "quit.now"):
            yield _command(app, app, name, action, view)
    yield Entry("save a picture of the screen", app.save_picture, note="svg screenshot")


def _command(app: Host, where: Screen[Any] | Host, name: str, action: str, view: View) -> Entry:
    async def run() -> None:
        await app.run_action(action, where)

    command = BY_ID[name]
    return Entry(command.words, run, view.keys.label(name), f"{name} {command.short}")


def _engines(app: Host, view: View) -> Iterator[Entry]:
    for name in view.store.engines:
        if name != view.store.selected:
            yield Entry(f"engine {f.clean(name, 60)}", _select(app, name), note="select")


def _select(app: Host, name: str) -> Callable[[], None]:
    def run() -> None:
        app.dashboard.act(lambda: app.control.select(name), free=True)

    return run


def _themes(app: Host) -> Iterator[Entry]:
    for name in app.theme_names:
        yield Entry(f"theme {f.clean(name, 60)}", _theme(app, name), note="colours")


def _theme(app: Host, name: str) -> Callable[[], None]:
    return lambda: app.choose_theme(name)


def _options(app: Host, view: View, typed: str) -> Iterator[Entry]:
    """Options of the selected engine; once a text is typed, also of the other engines."""
    if view.stage is not LifecycleView.RUNNING:
        return
    if view.engine is not None and view.engine.owned:
        note = 'flags of the engine, such as "--enforce-eager"'
        yield Entry(RESTART_WITH, _do_nothing, note=note, text=RESTART_WITH)
    for engine in view.store.engines.values():
        ours = engine.name == view.store.selected
        if not (ours or typed):
            continue
        for option in engine.options:
            yield from _option(app, view, engine, option, "" if ours else engine.name)


def _option(
    app: Host, view: View, engine: EngineTrack, option: Option, where: str
) -> Iterator[Entry]:
    name = f.clean(option.name, 60)
    title = f"set {f.clean(where, 40)} {name}" if where else f"set {name}"
    note = f"is {f.option(option.value)}, {f.applies(option.applies, option.launch)}"
    if _fixed(engine, option, view):
        return
    if option.spec.kind is bool:
        value = not option.value
        run = _change(app, engine, option, value)
        yield Entry(f"{title} = {f.option(value)}", run, note=note)
        return
    yield Entry(f"{title} = ", _do_nothing, note=note, text=f"{title} = ")


def _fixed(engine: EngineTrack, option: Option, view: View) -> str:
    if option.applies is Applies.RESTART and not engine.owned:
        return "needs a restart; llmtop did not start this"
    return frozen(option, view) if engine.name == view.store.selected else ""


def _change(
    app: Host, engine: EngineTrack, option: Option, value: OptionValue
) -> Callable[[], None]:
    return lambda: app.dashboard.change(engine, option.name, value)


def _loads(app: Host, view: View) -> Iterator[Entry]:
    if view.stage is not LifecycleView.RUNNING:
        return
    for name in app.config.table.shapes:
        plan = _plan(app, f"@{name}")
        yield Entry(f"load @{name}", _load(app, plan), note=f.clean(plan.shape, 60))
    running = view.load.shape if view.load is not None and view.load.running else "hold 1"
    for name in app.config.table.prompts:
        yield Entry(
            f"load {f.clean(running, 60)}{ASKING}@{name}",
            _load(app, Plan(shape=running), name),
            note="prompts",
        )
    yield Entry("load ", _do_nothing, note='a shape, such as "ramp 1..256 over 60s"', text="load ")


def _plan(app: Host, shape: str) -> Plan:
    """The plan of a shape, or of ``@NAME`` with the loop and the arrivals of its table."""
    table = app.config.shape_table(shape)
    return Plan(
        loop=Loop(table.loop),
        shape=table.shape,
        arrival=Arrival(table.arrival),
        burstiness=table.burstiness,
    )


def _load(app: Host, plan: Plan, prompts: str = "") -> Callable[[], None]:
    def run() -> None:
        asked = app.config.prompts(prompts) if prompts else None
        app.dashboard.act(lambda: app.control.load(plan, asked))

    return run


def _typed(app: Host, view: View, typed: str) -> Iterator[Entry]:
    """Entries that use the typed text as a value: a load, an option, flags for a restart."""
    text = typed.strip()
    if view.stage is not LifecycleView.RUNNING:
        return
    if text.startswith("load "):
        yield _typed_load(app, text.removeprefix("load ").strip())
    elif text.startswith("set ") and "=" in text:
        yield from _typed_option(app, view, text)
    elif text.startswith(RESTART_WITH) and view.engine is not None and view.engine.owned:
        yield _typed_flags(app, text)


def _typed_load(app: Host, text: str) -> Entry:
    shape, _, prompts = text.partition(ASKING)
    title = f"load {text}"
    try:
        plan = _plan(app, shape.strip())
        shapes.parse(plan.shape)
        if prompts:
            app.config.prompts(prompts.strip())
    except LlmtopError as error:
        return Entry(title, _do_nothing, note=_error_words(error), text=title)
    return Entry(title, _load(app, plan, prompts.strip()), note="as typed")


def _typed_option(app: Host, view: View, text: str) -> Iterator[Entry]:
    left, _, value = text.removeprefix("set ").partition("=")
    words = left.split()
    if not words:
        return
    named, option_name = words[:-1], words[-1]
    engine = view.store.engines.get(" ".join(named)) if named else view.engine
    option = next((o for o in engine.options if o.name == option_name), None) if engine else None
    if engine is None or option is None or not value.strip() or _fixed(engine, option, view):
        return
    try:
        wanted = Edit(text=value.strip()).value(option)
    except LlmtopError as error:
        yield Entry(text, _do_nothing, note=_error_words(error), text=text)
        return
    how = f.applies(option.applies, option.launch)
    yield Entry(text, _change(app, engine, option, wanted), note=f"as typed, {how}")


def _typed_flags(app: Host, text: str) -> Entry:
    try:
        flags = tuple(shlex.split(text.removeprefix(RESTART_WITH)))
    except ValueError:
        return Entry(text, _do_nothing, note="the quoting is not complete", text=text)
    if not flags[0].startswith("-"):
        return Entry(text, _do_nothing, note="flags begin with a dash", text=text)
    return Entry(text, lambda: app.dashboard.action_restart(*flags), note="as typed, asks first")


def _error_words(error: LlmtopError) -> str:
    return f.clean(f"{error.message}: {error.hint}" if error.hint else error.message, 200)


def _do_nothing() -> None:
    """The entry needs a value first."""
