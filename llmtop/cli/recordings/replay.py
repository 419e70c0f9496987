"""``llmtop replay FILE|EXAMPLE``: show a recording on the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import document, json_flag
from llmtop.cli.recordings.recording_names import recording_names
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags

if TYPE_CHECKING:
    from llmtop.history.recording_reader import Recording


@click.command()
@click.argument(
    "files", metavar="FILE|EXAMPLE [FILE|EXAMPLE]", nargs=-1, shell_complete=recording_names
)
@click.option("--list", "listing", is_flag=True, help="List the examples that come with llmtop.")
@click.option("--at", metavar="TIME", help="Begin at this moment, for example 2:14.")
@click.option("--paused", is_flag=True, help="Begin paused.")
@json_flag
@screen_flags
def command(
    files: tuple[str, ...],
    listing: bool,
    at: str | None,
    paused: bool,
    as_json: bool,
    screen: ScreenFlags,
) -> None:
    """Show a recording on the dashboard, or two of them side by side.

    FILE is what `llmtop record` or --record wrote. An EXAMPLE is a recording of a real engine on
    an H200 that comes with llmtop; `llmtop replay --list` shows them. No GPU is needed.

    Two recordings, A and B, begin at the same moment and share their axes. Keys that move in time
    move both.

    Space pauses. + and - change the speed. The arrows, page up and page down move in time.
    """
    if listing:
        _list(as_json)
        return
    if not files:
        raise UsageError("no recording was given", "llmtop replay --list shows the examples")
    if len(files) > 2:
        raise UsageError("a replay shows at most two recordings", "llmtop report accepts more")
    if as_json:
        raise UsageError("--json needs --list")
    from llmtop.cli.screen.dashboard import require_terminal
    from llmtop.history.examples import locate
    from llmtop.history.recording_reader import Recording
    from llmtop.history.shifted_recording import ShiftedRecording
    from llmtop.tui.view.replay_bar import seconds_of

    seconds = seconds_of(at) if at is not None else 0.0
    if seconds is None:
        raise UsageError(f"--at {at} is not a time", "write 2:14, 1:02:14 or 134")
    paths = [locate(file) for file in files]
    with ExitStack() as opened:
        recordings = [opened.enter_context(Recording(paths[0]))]
        for path in paths[1:]:
            other = ShiftedRecording(path, recordings[0].began)
            recordings.append(opened.enter_context(other))
        require_terminal(f"`llmtop report {' '.join(map(str, paths))} -o report.html`")
        names = [path.stem for path in paths]
        show(recordings, names, seconds, paused=paused, screen=screen)


def show(
    recordings: Sequence[Recording],
    titles: Sequence[str],
    seconds: float,
    *,
    paused: bool,
    screen: ScreenFlags,
) -> None:
    """Show one or two recordings until the user quits. seconds: start, from the recording's begin.

    The times of a second recording must be on the clock of the first. Raises LlmtopError when the
    screen fails.
    """
    from llmtop.cli.common.interrupts import INTERRUPTED
    from llmtop.cli.screen.dashboard import draws_unicode
    from llmtop.config.keymap import DEFAULT, Keymap
    from llmtop.operations.wiring import Wiring
    from llmtop.themes.theme import load_themes
    from llmtop.tui.commands.replay_control import ReplayControl
    from llmtop.tui.history.pair_player import PairPlayer
    from llmtop.tui.history.player import Player
    from llmtop.tui.replay.app import ReplayApp
    from llmtop.tui.terminal.shutdown import Shutdown

    player: Player | PairPlayer
    if len(recordings) > 1:
        player = PairPlayer(recordings, titles)
        control = ReplayControl(player.select, player.lines)
    else:
        player = Player(recordings[0], titles[0])
        control = ReplayControl(player.playback.select, player.lines)
    recording = recordings[0]
    player.seek(recording.began + seconds)
    if paused:
        player.toggle()
    wiring = Wiring()
    themes, problems = load_themes(wiring.themes_folder)
    shutdown = Shutdown()

    async def background() -> None:
        shutdown.listen(app.exit)
        await asyncio.Event().wait()

    app = ReplayApp(
        player,
        player.store,
        control,
        interval=recording.head.interval if 0.2 <= recording.head.interval <= 60 else 1.0,
        themes=themes,
        problems=problems,
        theme=screen.theme,
        ascii=screen.ascii or not draws_unicode(),
        gpu_hour=screen.gpu_hour,
        low_bandwidth=screen.low_bandwidth,
        clock=player.now,
        background=background,
        keys=Keymap(screen.config.table.keys) if screen.config is not None else DEFAULT,
        mouse=screen.mouse,
        config=screen.config,
    )
    app.state_folder = wiring.state.root
    try:
        app.run(mouse=screen.mouse)
    finally:
        player.stop()
    shutdown.finish()
    if app.interrupted or shutdown.exit_code:
        raise click.exceptions.Exit(shutdown.exit_code or INTERRUPTED)
    if app.return_code:
        why = f": {app.fault}" if app.fault else ""
        raise LlmtopError(f"the replay failed{why}")


def _list(as_json: bool) -> None:
    """Print the examples: name, length, title, source."""
    from llmtop.history.examples import locate, names
    from llmtop.history.recording_reader import Recording
    from llmtop.tui.view.replay_bar import moment

    found = []
    for name in names():
        with Recording(locate(name)) as recording:
            engines = list(recording.engines().values())
            found.append(
                {
                    "name": name,
                    "seconds": round(recording.duration_s),
                    "title": recording.head.title,
                    "source": recording.head.source,
                    "engines": [f"{one.engine} {one.version or ''}".strip() for one in engines],
                }
            )
    if as_json:
        document({"examples": found})
        return
    width = max((len(str(one["name"])) for one in found), default=0)
    for one in found:
        seconds = one["seconds"]
        assert isinstance(seconds, int)
        click.echo(f"{one['name']:<{width}}  {moment(seconds):>7}  {one['title']}")
        click.echo(f"{'':<{width}}           {one['source']}")
    if not found:
        click.echo("no examples are installed")
