"""The entry point of the command line. It finds commands by name, and it alone prints errors.

Each command is a module in a room of ``llmtop.cli`` (``common.command_table``). It is imported only
when it is called: ``--help`` and ``ps`` must not wait for the screen's modules.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.command_names import guess, meaning
from llmtop.cli.common.command_table import COMMANDS, by_heading
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED, by_ctrl_c, follow_output
from llmtop.cli.common.program import NAME
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags
from llmtop.cli.screen.tour_options import TourFlags, speed_flag

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LINE_CHARS = 600  # longest line of an error; a typed name may have ten thousand characters


class Commands(click.Group):
    """The commands of the table, each imported when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"llmtop.cli.{COMMANDS[cmd_name].room}.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Accept other tools' names for a command; suggest a near name for an unknown one."""
        if args and not args[0].startswith("-"):
            name = meaning(args[0], COMMANDS)
            if name is not None:
                args = [name, *args[1:]]
            elif not ctx.resilient_parsing:  # shell completion must not raise errors
                known = "the commands are " + ", ".join(COMMANDS)
                hint = guess(args[0], COMMANDS) or known
                raise UsageError(f"there is no command {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, under the headings of their rooms."""
        for heading, entries in by_heading().items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table, without importing the commands."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the version and exit."""
    if value and not ctx.resilient_parsing:
        from llmtop.cli.common.program import version

        click.echo(f"{NAME} {version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure (with its cause and a hint), 2 invalid arguments, "
    "130 ended by Ctrl+C.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version (in a checkout with the commit) and exit.",
)
@screen_flags
@click.option(
    "--tour",
    metavar="NAME|URL",
    shell_complete=engine_names,
    help="Show the tour on this engine (five minutes, with load).",
)
@speed_flag
@click.option("--yes", is_flag=True, help="Do not ask before the tour loads an engine.")
@click.pass_context
def group(
    ctx: click.Context, tour: str | None, tour_speed: float, yes: bool, screen: ScreenFlags
) -> None:
    """Start, watch, load and tune LLM engines on a GPU box from one terminal.

    Without a command, llmtop opens the dashboard on all engines that it knows on this machine.
    """
    if ctx.invoked_subcommand is None:
        from llmtop.cli.screen import dashboard
        from llmtop.operations.wiring import Wiring

        dashboard.require_terminal()
        if tour is not None:
            dashboard.show_tour(tour, TourFlags(tour_speed), screen, yes=yes)
            return
        dashboard.show(Wiring(), screen=screen)
        return
    if tour is not None:
        raise UsageError("--tour takes no command", "for the simulated engine: llmtop demo --tour")
    refuse_misplaced(ctx, ctx.invoked_subcommand)


def refuse_misplaced(ctx: click.Context, name: str) -> None:
    """Raise UsageError for an option that stands before the command instead of after it.

    The command would ignore it: ``llmtop --readonly attach`` must not open a dashboard that can
    change an engine. The only exception is ``--config``, for commands that read the file.
    """
    command = group.get_command(ctx, name)
    known = {param.name for param in command.params} if command is not None else set()
    for param in group.params:
        option = param.name or ""
        if ctx.get_parameter_source(option) is not ParameterSource.COMMANDLINE:
            continue
        if option in known and option == "config_file":
            continue
        flag = param.opts[0] if ctx.params[option] is not False else param.secondary_opts[0]
        if option in known:
            raise UsageError(f"{flag} must come after {name}", f"write llmtop {name} {flag}")
        raise UsageError(f"{flag} is not an option of {name}", f"see `llmtop {name} --help`")


def short(text: str) -> str:
    """Cut a line of an error to LINE_CHARS characters."""
    return text if len(text) <= LINE_CHARS else f"{text[: LINE_CHARS - 1]}…"


def print_error(error: LlmtopError) -> None:
    """Print an error on stderr: the message on one line, the hint on the next."""
    from llmtop.config.faults import ConfigError
    from llmtop.engines.host.safe_text import clean
    from llmtop.printable import printable

    # A ConfigError contains keys of llmtop.toml but no values. `clean` would redact the words after
    # a key such as HF_TOKEN.
    message = (printable if isinstance(error, ConfigError) else clean)(error.message)
    with contextlib.suppress(OSError):  # stderr may be full too; the exit code still reports it
        click.echo(f"llmtop: {short(message)}", err=True)
        if error.hint:
            click.echo(f"        {short(clean(error.hint))}", err=True)
        for line in getattr(error, "excerpt", ()):  # the log of an engine that did not start
            click.echo(f"        | {short(clean(line))}", err=True)


def check_text(argv: Sequence[str]) -> None:
    """Raise UsageError for an argument that cannot be printed, sent or stored as text.

    Numbers must use the digits 0 to 9.
    """
    for argument in argv:
        if not argument.isascii() and any("\ud800" <= c <= "\udfff" for c in argument):
            raise UsageError(f"{argument!a} is not valid UTF-8")
        if "\0" in argument:
            raise UsageError(f"{argument!a} contains a NUL character")
    for argument in itertools.takewhile(lambda word: word != "--", argv):
        if not argument.isascii():
            from llmtop.cli.common.param_types import check_digits

            check_digits(argument)


def check_streams() -> None:
    """Open /dev/null for each closed standard stream; LlmtopError when stdout is closed.

    Otherwise the next file or socket would get the stream's descriptor, and with it the output.
    """
    closed = [n for n, s in enumerate((sys.stdin, sys.stdout, sys.stderr)) if s is None]
    for number in closed:
        while os.open(os.devnull, os.O_RDWR) < number:
            pass
    if 0 in closed:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if 1 in closed:
        raise LlmtopError("standard output is closed", "to discard the output: >/dev/null")


def was_printing(error: OSError) -> bool:
    """Whether an OSError was raised while printing, not while writing a file of llmtop.

    Only the traceback shows it: after a failed write, the output buffer is empty.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is click.echo.__code__


def discard_output() -> None:
    """Send the rest of stdout to /dev/null. Else the interpreter reports an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_over_ssh(argv: Sequence[str]) -> int | None:
    """Run a command with an ``ssh://`` argument on that machine, and return its exit code.

    None when the command must run on this machine.
    """
    if not any(word.startswith("ssh://") for word in argv):
        return None
    from llmtop.fleet.ssh import forwarded, run_there

    found = forwarded(argv)
    if found is None:
        return None
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return run_there(*found, terminal=terminal)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; end the process with exit code 0, 1, 2 or 130."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. No traceback reaches the terminal."""
    try:
        check_streams()
        follow_output(os.environ)
        check_text(sys.argv[1:] if argv is None else argv)
        if (code := run_over_ssh(sys.argv[1:] if argv is None else argv)) is not None:
            return code
        result: Any = group.main(args=argv, prog_name=NAME, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort as stop:
        interrupted = by_ctrl_c(stop)
        print_error(LlmtopError("interrupted" if interrupted else "stopped"))
        return INTERRUPTED if interrupted else 1
    except click.UsageError as error:
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else "see `llmtop --help`"
        print_error(UsageError(error.format_message().rstrip("."), hint))
        return 2
    except click.ClickException as error:
        print_error(LlmtopError(error.format_message()))
        return 1
    except UsageError as error:
        print_error(error)
        return 2
    except LlmtopError as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        print_error(LlmtopError("interrupted"))
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has exited: print nothing.
        discard_output()
        return 1
    except Exception as error:
        if isinstance(error, OSError) and was_printing(error):
            discard_output()
            print_error(
                LlmtopError(f"standard output cannot be written: {error.strerror or error}")
            )
            return 1
        if os.environ.get("LLMTOP_TRACEBACK"):
            traceback.print_exc()
        print_error(
            LlmtopError(
                f"internal error in llmtop: {type(error).__name__}: {error}",
                "set LLMTOP_TRACEBACK=1 to see the traceback, and please report it",
            )
        )
        return 1
