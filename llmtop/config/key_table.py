"""The table of all commands of the screen with their default keys.

Bindings, borders, help, the palette and ``[keys]`` of ``llmtop.toml`` use this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llmtop.config.key_places import DASHBOARD, Command, Place

__all__ = ["BY_ID", "COMMANDS", "DASHBOARD", "LEAVING", "Command", "Place", "of"]


def _rows(place: Place, *rows: tuple[str, str, str, str], **flags: bool) -> Iterator[Command]:
    for name, keys, words, short in rows:
        yield Command(name, place, tuple(keys.split(",")), words, short, **flags)


COMMANDS: tuple[Command, ...] = (
    *_rows(
        Place.LOAD,
        (
            "load.more",
            "plus,equals_sign",
            "more load: holds the new level, the shape pauses. Without a load: starts one stream",
            "more",
        ),
        ("load.less", "minus", "less load: holds the new level, the shape pauses", "less"),
        ("load.hold", "space", "hold the load at its level; again: continue its shape", "hold"),
        ("load.burst", "b", "a short burst of load", "burst"),
        (
            "load.loop",
            "u",
            "switch between streams (closed loop) and requests a second (open loop); "
            "holds the achieved level",
            "unit",
        ),
        ("load.stop", "0", "stop the load; requests in flight finish", "stop"),
        ("load.again", "a", "repeat the last load, after it was stopped", "again"),
        ("load.cut", "X", "stop the load and cut the requests in flight", "cut"),
        changes=True,
    ),
    *_rows(
        Place.ENGINES,
        ("options", "o", "change options", "options"),
        ("saturation", "s", "saturation: how much load the engine holds", "saturation"),
        ("compare", "c", "compare two values of an option, or two engines", "compare"),
        ("tune", "T", "tune: the best settings, measured", "tune"),
        (
            "engine.hold",
            "H",
            "hold: keep the engine within latency limits; asks first. Again: end the hold",
            "hold",
        ),
        ("engine.restart", "R", "restart the engine with the same options; asks first", "restart"),
        ("engine.stop", "K", "stop the engine; asks first", "stop it"),
        changes=True,
    ),
    *_rows(
        Place.ENGINES,
        ("engine.next", "n,tab", "the next engine", "next engine"),
        ("engine.before", "shift+tab", "the engine before", "engine before"),
        ("engine.beside", "v", "two engines side by side; again: one", "side by side"),
        ("log", "l", "the engine's log", "log"),
        ("why", "y", "why the engine is slow, and what to change", "why"),
        ("steps", "e", "each step of the scheduler: what it contains, how long it takes", "steps"),
        ("requests", "r", "the requests inside the engine", "requests"),
    ),
    *_rows(
        Place.SCREEN,
        (
            "palette",
            "ctrl+p,colon",
            "palette: find keys, options, loads, themes by name",
            "palette",
        ),
        ("theme", "t", "the next theme", "theme"),
        (
            "mouse",
            "m",
            "release the mouse, so that the terminal can select text; again: use it",
            "mouse",
        ),
        ("boxes", "B", "hide boxes or show them; the choice is saved", "boxes"),
        ("record", "ctrl+r", "record the screen's data into a file; again: end it", "record"),
        ("help", "question_mark,f1", "help: every key, every number", "help"),
        ("suspend", "ctrl+z", "suspend; fg brings it back", "suspend"),
        ("quit", "q", "quit: asks whether to keep the engines running", "quit"),
        ("quit.now", "ctrl+c,ctrl+q", "quit, from every screen", "quit"),
    ),
    *_rows(
        Place.CHARTS,
        (
            "chart.left",
            "comma",
            "a cursor in the charts: its time, exact values, n; back",
            "cursor",
        ),
        ("chart.right", "full_stop", "the cursor forward", ""),
        ("chart.back", "less_than_sign", "the charts back in time, by a quarter", "back"),
        ("chart.on", "greater_than_sign", "the charts forward in time, by a quarter", ""),
        ("chart.wider", "z", "show more time, up to 24 hours", "zoom"),
        ("chart.narrower", "Z", "show less time, down to one minute", ""),
        ("chart.freeze", "F", "freeze the charts; again: follow the present", "freeze"),
        ("chart.enlarge", "f", "one chart large; again: the next one", "enlarge"),
        ("chart.now", "escape", "reset the charts: present time, no cursor, no zoom", ""),
    ),
    *_rows(
        Place.OPTIONS,
        (
            "options.up",
            "up,k",
            "the option above; while changing one that has choices: the choice above",
            "choose",
        ),
        ("options.down", "down,j", "the option below, the choice below", "choose"),
        (
            "options.change",
            "enter,space",
            "change it: type, then enter. A switch flips at once. A restart asks first.",
            "change",
        ),
        (
            "options.evict",
            "e",
            "while max_num_seqs is lowered: evict, that is put running requests back in the queue",
            "evict",
        ),
        (
            "options.leave",
            "escape,o,q",
            "leave the options; esc while typing: the value stays as it is",
            "back",
        ),
    ),
    *_rows(
        Place.LOG,
        ("log.up", "up,k", "a line up; following ends", "scroll"),
        ("log.down", "down,j", "a line down", "scroll"),
        ("log.page_up", "pageup", "a page up", ""),
        ("log.page_down", "pagedown", "a page down", ""),
        ("log.first", "home,g", "the first line that is kept", "first"),
        ("log.last", "end,G", "the last line, and follow", "last"),
        ("log.left", "left", "to the left; lines are never wrapped", ""),
        ("log.right", "right", "to the right", ""),
        ("log.follow", "f", "follow or stay: whether new lines move the screen", "follow"),
        ("log.level", "v", "all lines, warnings and errors, errors alone", "levels"),
        ("log.error", "e", "the first error", "first error"),
        ("log.search", "slash", "search; text in small letters finds capitals too", "search"),
        ("log.next", "n", "the next hit", "next"),
        ("log.previous", "N", "the previous hit", "previous"),
        ("log.back", "escape,l,q", "back; esc ends a search first", "back"),
    ),
    *_rows(
        Place.STEPS,
        ("steps.why", "y", "why the engine is slow", "why"),
        ("steps.back", "escape,e,q", "back", "back"),
    ),
    *_rows(
        Place.REQUESTS,
        ("requests.up", "up,shift+tab", "the request above", "choose"),
        ("requests.down", "down,tab", "the request below", "choose"),
        ("requests.age", "a", "sort by age, the oldest first", "age"),
        ("requests.kv", "k", "sort by KV blocks", "KV"),
        ("requests.tokens", "t", "sort by output tokens", "tokens"),
        ("requests.wait", "w", "sort by the time in the queue", "wait"),
        ("requests.filter", "slash", "show those with this text in their id or state", "filter"),
        ("requests.details", "enter", "all details of the request; again: close", "details"),
        ("requests.back", "escape,r,q", "back; first a filter ends", "back"),
    ),
    *_rows(
        Place.REQUESTS,
        ("requests.abort", "A", "abort the request; asks first", "abort"),
        changes=True,
    ),
    *_rows(
        Place.WHY,
        ("why.change", "enter", "set the option of the main cause; asks first", "set it"),
        changes=True,
    ),
    *_rows(
        Place.WHY,
        ("why.steps", "e", "the steps", "steps"),
        ("why.requests", "r", "the requests", "requests"),
        ("why.back", "escape,y,q", "back", "back"),
    ),
    *_rows(
        Place.HELP,
        ("help.up", "up,k", "a line up", "up"),
        ("help.down", "down,j", "a line down", "down"),
        ("help.page_up", "pageup", "a page up", ""),
        ("help.page_down", "pagedown,space", "a page down", ""),
        ("help.first", "home,g", "the beginning", ""),
        ("help.last", "end,G", "the end", ""),
        ("help.back", "escape,q,question_mark", "back", "back"),
    ),
    *_rows(
        Place.PALETTE,
        ("palette.up", "up,ctrl+k", "the line above", "choose"),
        ("palette.down", "down,ctrl+j", "the line below", "choose"),
        ("palette.run", "enter", "do it, or type its value", "do it"),
        ("palette.take", "tab", "complete with the words of the line", "complete"),
        ("palette.back", "escape,ctrl+p", "back", "back"),
        typed=True,
    ),
    *_rows(
        Place.EXPERIMENT,
        ("experiment.start", "enter", "start; from a result: show the form", "start"),
        ("experiment.form", "e", "show the form", "other settings"),
        ("experiment.stop", "x,0", "stop it, and keep the results so far", "stop"),
        ("experiment.back", "escape,q", "back; what runs continues", "back"),
        ("saturation.ghosts", "g", "earlier curves: all, the newest, none", "earlier curves"),
        ("saturation.back", "s", "back from the saturation screen", "back"),
        ("compare.back", "c", "back from the compare screen", "back"),
        ("tune.use", "u", "set what a tune has found", "use it"),
        ("tune.back", "T", "back from the tune screen", "back"),
        changes=True,
    ),
    *_rows(
        Place.BOXES,
        ("boxes.up", "up,k", "the box above", "choose"),
        ("boxes.down", "down,j", "the box below", "choose"),
        ("boxes.switch", "space,enter", "hide it; again: show it", "hide, show"),
        ("boxes.all", "a", "show all boxes", "show all"),
        ("boxes.back", "escape,B,q", "back", "back"),
    ),
    *_rows(
        Place.QUIT,
        ("quit.leave", "enter,q,y", "quit, leave them running", "quit, leave them running"),
        ("quit.stay", "escape,c,n", "stay", "stay"),
    ),
    *_rows(
        Place.QUIT, ("quit.stop", "S", "quit and stop them", "quit and stop them"), changes=True
    ),
    *_rows(
        Place.STOP,
        ("stop.yes", "Y", "stop it", "stop it"),
        ("stop.no", "escape,n,q", "leave it running", "leave it running"),
        changes=True,
    ),
    *_rows(
        Place.RESTART,
        ("restart.yes", "y", "restart it", "restart it"),
        ("restart.rolling", "r", "start the new one first, then stop the old one", "rolling"),
        ("restart.no", "escape,n,q", "leave it as it is", "leave it as it is"),
        changes=True,
    ),
    *_rows(
        Place.FLEET,
        ("fleet.up", "up,k", "the instance above", "choose"),
        ("fleet.down", "down,j", "the instance below", "choose"),
        ("fleet.page_up", "pageup", "a page up", ""),
        ("fleet.page_down", "pagedown", "a page down", ""),
        ("fleet.first", "home,g", "the first instance", ""),
        ("fleet.last", "end,G", "the last instance", ""),
        ("fleet.open", "enter", "the dashboard of the instance, from its Prometheus", "open"),
        ("fleet.ssh", "o", "llmtop on the host of the instance, through ssh", "ssh"),
        ("fleet.sort", "s", "the next order: state, requests, KV, TTFT, tok/s, name", "sort"),
        ("fleet.group", "b", "the next way to group: model, engine, version, host, job", "group"),
        ("fleet.pin", "p", "pin: the instance stays at the top", "pin"),
        ("fleet.filter", "slash", "show only instances that contain a text", "filter"),
        ("fleet.back", "escape", "end the filter", ""),
    ),
    *_rows(
        Place.REPLAY,
        ("replay.play", "space", "pause; again: play. At the end: from the beginning", "pause"),
        ("replay.faster", "plus,equals_sign", "twice as fast, up to 64x", "faster"),
        ("replay.slower", "minus", "half as fast, down to 0.25x", "slower"),
        ("replay.step", "enter", "pause, and show the next sample", "step"),
        ("replay.on", "right", "10 seconds forward", ""),
        ("replay.back", "left", "10 seconds back", "10 s"),
        ("replay.next", "pagedown", "the next mark or event", ""),
        ("replay.before", "pageup", "the mark or event before", "marks"),
        ("replay.first", "home", "the beginning", ""),
        ("replay.last", "end", "the end", ""),
        ("replay.moment", "g", "go to a moment: type 2:14 or 1:02:14, then enter", "go to"),
    ),
    *_rows(
        Place.CHANGE,
        ("change.yes", "y", "change it", "change it"),
        ("change.no", "escape,n,q", "leave it as it is", "leave it as it is"),
        changes=True,
    ),
    *_rows(
        Place.ABORT,
        ("abort.yes", "Y", "abort it", "abort it"),
        ("abort.no", "escape,n,q", "let it run", "let it run"),
        changes=True,
    ),
    *_rows(
        Place.HOLD,
        ("hold.yes", "enter", "hold it within the typed limits", "hold it"),
        ("hold.no", "escape", "leave it as it is", "leave it as it is"),
        changes=True,
        typed=True,
    ),
    *_rows(
        Place.END_HOLD,
        ("hold.end", "y", "end the hold", "end the hold"),
        ("hold.stay", "escape,n,q", "keep holding", "keep holding"),
        changes=True,
    ),
)

BY_ID: Mapping[str, Command] = {command.id: command for command in COMMANDS}
LEAVING = "quit.now"  # works on every screen, before the other commands


def of(places: Iterable[Place], *, readonly: bool = False) -> list[Command]:
    """The commands of some places. readonly: without those that change an engine or its load."""
    wanted = set(places)
    return [c for c in COMMANDS if c.place in wanted and not (readonly and c.changes)]
