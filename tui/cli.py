"""The command line: which verbs there are, and the one place where errors become words.

Verbs live in ``llmtop.tui.verbs``, one module each, and are imported only when they are called:
``--help`` and ``ps`` must not pay for the screen.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from llmtop import LlmtopError, UsageError, __version__
from llmtop.tui import spared  # noqa: F401  before whatever imports asyncio
from llmtop.tui.verbs.screen import ScreenFlags, screen_flags
from llmtop.tui.verbs.touring import TourFlags, speed_flag

# One line a verb, here rather than in the modules, so that --help imports none of them.
VERBS = {
    "demo": "Show a simulated engine under a load ramp, on the dashboard.",
    "run": "Start an engine and open the dashboard on it (or --detach).",
    "up": "Start the engines that llmtop.toml names.",
    "down": "Stop the engines that llmtop.toml names.",
    "attach": "Open the dashboard on engines that somebody else started, by URL.",
    "ps": "List the engines that llmtop started.",
    "once": "Print one sample of an engine's numbers.",
    "options": "List an engine's options and how each one applies.",
    "set": "Change options of a running engine.",
    "restart": "Restart an engine with other options; the last good ones come back if it fails.",
    "load": "Send load to an engine and report what came back.",
    "calibrate": "Say how much load this machine can carry as a client.",
    "saturate": "Find how much load an engine holds, and where its throughput peaks.",
    "compare": "Compare two settings of an engine, or two engines, in turns.",
    "logs": "Print an engine's log.",
    "stop": "Stop an engine and everything that it started.",
    "doctor": "Check GPUs, engines, ports and folders; end orphaned engine processes.",
    "schema": "Print the JSON schema of llmtop.toml, for editors.",
}


LINE_CHARS = 600  # of an error: a name that was typed may be ten thousand


class Verbs(click.Group):
    """The verbs, imported when they are first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and hand over its ``command``."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"llmtop.tui.verbs.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name what is near when a verb is unknown."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise UsageError(
                f"there is no command {args[0]!r}", "the commands are " + ", ".join(VERBS)
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 it failed (and why, and what to try), 2 it was not understood.",
)
@click.version_option(__version__, prog_name="llmtop", message="%(prog)s %(version)s")
@screen_flags
@click.option("--tour", metavar="NAME|URL", help="Show a tour of five minutes on this engine.")
@speed_flag
@click.option("--yes", is_flag=True, help="Do not ask before the tour loads an engine.")
@click.pass_context
def group(
    ctx: click.Context, tour: str | None, tour_speed: float, yes: bool, screen: ScreenFlags
) -> None:
    """Start, watch, load and tune LLM engines on a GPU box from one terminal.

    Without a command: the dashboard on every engine that llmtop knows here.
    """
    if ctx.invoked_subcommand is None:
        from llmtop.tui.verbs import dashboard
        from llmtop.tui.wiring import Wiring

        dashboard.require_terminal()
        if tour is not None:
            dashboard.show_tour(tour, TourFlags(tour_speed), screen, yes=yes)
            return
        dashboard.show(Wiring(), screen=screen)
        return
    if tour is not None:
        raise UsageError("--tour goes without a command", "or: llmtop demo --tour")
    refuse_unheard(ctx, ctx.invoked_subcommand)


def refuse_unheard(ctx: click.Context, verb: str) -> None:
    """UsageError for a flag before a verb that the verb would never hear of.

    ``llmtop --readonly attach`` must not open a dashboard that changes things. The file is the one
    exception, where the verb reads one.
    """
    command = group.get_command(ctx, verb)
    known = {param.name for param in command.params} if command is not None else set()
    for param in group.params:
        name = param.name or ""
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name in known and name == "config_file":
            continue
        flag = param.opts[0] if ctx.params[name] is not False else (param.secondary_opts[0])
        behind = f"write llmtop {verb} {flag}" if name in known else f"{verb} takes none"
        raise UsageError(f"{flag} stands before {verb}, which would not know of it", behind)


def short(text: str) -> str:
    """At most so much of a line that it is still one on a wide terminal."""
    return text if len(text) <= LINE_CHARS else f"{text[: LINE_CHARS - 1]}…"


def say(error: LlmtopError) -> None:
    """Print an error as a person should read it: one line, and a second one for the way out."""
    from llmtop.engines.logs import clean, printable
    from llmtop.tui.config.faults import ConfigError

    # Of llmtop.toml it names keys and no values: one called HF_TOKEN hides nothing that follows.
    message = (printable if isinstance(error, ConfigError) else clean)(error.message)
    with contextlib.suppress(OSError):  # standard error is full too: the exit code is left
        click.echo(f"llmtop: {short(message)}", err=True)
        if error.hint:
            click.echo(f"        {short(clean(error.hint))}", err=True)


def check_text(argv: Sequence[str]) -> None:
    """UsageError for an argument that is not text: it could be neither shown nor sent nor kept."""
    for argument in argv:
        if not argument.isascii() and any("\ud800" <= c <= "\udfff" for c in argument):
            raise UsageError(f"{argument!a} is not valid UTF-8")
        if "\0" in argument:
            raise UsageError(f"{argument!a} holds a NUL character")


def check_streams() -> None:
    """LlmtopError where standard output is closed; the other two are read and written as empty.

    Else the next file or socket that is opened would get their number, and what is printed.
    """
    closed = [n for n, s in enumerate((sys.stdin, sys.stdout, sys.stderr)) if s is None]
    for number in closed:
        while os.open(os.devnull, os.O_RDWR) < number:
            pass
    if 0 in closed:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if 1 in closed:
        raise LlmtopError("standard output is closed", "to print nothing: >/dev/null")


def was_printing(error: OSError) -> bool:
    """Whether it came of printing: the buffer forgets what it could not write, so only the place
    tells a full disk under standard output from one under a file of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is click.echo.__code__


def discard_output() -> None:
    """Let what is still to be written go nowhere, so that the interpreter does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with exit code 0, 1 or 2."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. No traceback reaches the terminal."""
    # httpx brings a command line of its own where click and rich are installed, and with it a
    # highlighter: half of its import, a tenth of a second before the screen. None: not to be had.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        check_streams()
        check_text(sys.argv[1:] if argv is None else argv)
        result: Any = group.main(args=argv, prog_name="llmtop", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        click.echo("llmtop: stopped", err=True)
        return 1
    except click.UsageError as error:
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else "see `llmtop --help`"
        say(UsageError(error.format_message().rstrip("."), hint))
        return 2
    except click.ClickException as error:
        say(LlmtopError(error.format_message()))
        return 1
    except UsageError as error:
        say(error)
        return 2
    except LlmtopError as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        click.echo("llmtop: interrupted", err=True)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has left: nothing to say, and nobody to say it to.
        discard_output()
        return 1
    except Exception as error:
        if isinstance(error, OSError) and was_printing(error):
            discard_output()
            say(LlmtopError(f"standard output cannot be written: {error.strerror or error}"))
            return 1
        if os.environ.get("LLMTOP_TRACEBACK"):
            traceback.print_exc()
        say(
            LlmtopError(
                f"a fault in llmtop itself: {type(error).__name__}: {error}",
                "set LLMTOP_TRACEBACK=1 to see where, and please report it",
            )
        )
        return 1
