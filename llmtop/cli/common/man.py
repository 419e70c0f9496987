"""``llmtop man``: the manual page in roff, generated from the help of each command."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from llmtop import __version__
from llmtop.cli.common.program import NAME


@click.command()
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print the manual page. To read it: llmtop man | man -l -"""
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    click.echo(page(root.command), nl=False)


def page(group: click.Group) -> str:
    """The manual page of a group of commands, with a section for each command."""
    return "\n".join(_lines(group)) + "\n"


def _lines(group: click.Group) -> Iterator[str]:
    top = click.Context(group, info_name=NAME, **group.context_settings)
    yield f'.TH {NAME.upper()} 1 "" "{NAME} {__version__}" "User Commands"'
    yield ".SH NAME"
    summary = inspect.cleandoc(group.help or "").split("\n\n")[0]
    yield f"{NAME} \\- {_text(_one_line(summary).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {NAME}"
    yield _text(" ".join(group.collect_usage_pieces(top)))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(group.help or "")
    yield ".SH OPTIONS"
    yield from _options(group, top)
    yield ".SH COMMANDS"
    for name in group.list_commands(top):
        found = group.get_command(top, name)
        assert found is not None
        yield from _command(found, click.Context(found, info_name=name, parent=top))
    yield ".SH EXIT STATUS"
    yield from _paragraphs(group.epilog or "")


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    pieces = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield f'.SS "{_text(pieces)}"'
    yield from _paragraphs(command.help or "")
    yield from _options(command, ctx)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            yield ".TP"
            yield f".B {_text(record[0])}"
            yield _text(_one_line(record[1])) or "\\&"


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text, in roff.

    A paragraph that is indented or begins with click's ``\\b`` keeps its line breaks.
    """
    for block in inspect.cleandoc(text).split("\n\n"):
        fixed = block.startswith("\b")
        lines = block.removeprefix("\b").strip("\n").splitlines()
        if not any(line.strip() for line in lines):
            continue
        yield ".PP"
        if fixed or lines[0].startswith("    "):
            yield ".nf"
            yield from (_text(line) for line in lines)
            yield ".fi"
        else:
            yield _text(_one_line(block))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    r"""Escape plain text for roff: backslash, minus, quote, leading dot.

    >>> _text("--a \\ b"), _text(".x")
    ('\\-\\-a \\e b', '\\&.x')
    """
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith((".", "'")) else text
