"""What is asked: the options that every loading verb has, and what they and the file come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtop.loadgen.plan import Prompts
from llmtop.tui.verbs.kinds import Real
from llmtop.tui.verbs.output import note
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.tui.config.file import Config

LENGTHS = '128, 64..256 or "lognormal 512 cv 0.8 max 4096".'


def prompt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a verb; ``prompts_of`` makes Prompts of them."""
    for option in (
        click.option("--model", help="The model to ask for; by default the one that is served."),
        click.option("--chat", is_flag=True, help="Use /v1/chat/completions."),
        click.option(
            "--think",
            default="0",
            show_default=True,
            metavar="PAUSES",
            help="Before a conversation's next turn: 2s, 1s..5s or lognormal 5s cv 1 max 60s.",
        ),
        click.option(
            "--turns",
            default=1,
            show_default=True,
            type=click.IntRange(1, 1000),
            help="Turns of a conversation, each with all that was said before: chats.",
        ),
        click.option(
            "--dataset", metavar="FILE", help="Prompts from a ShareGPT JSON file or JSON lines."
        ),
        click.option(
            "--json-schema",
            metavar="FILE|builtin",
            help="Answers must follow this JSON schema (structured generation).",
        ),
        click.option(
            "--natural-end",
            is_flag=True,
            help="Answers end where the model ends them, at --output-tokens at the latest.",
        ),
        click.option("--temperature", default=1.0, show_default=True, type=Real(0, 2)),
        click.option("--text", is_flag=True, help="Send words instead of token ids."),
        click.option(
            "--repetitive", is_flag=True, help="Prompts that n-gram speculation guesses well."
        ),
        click.option(
            "--shared-prefix-share",
            type=Real(0, 1),
            help="Share of the requests that begin alike (default: 1 with a shared prefix).",
        ),
        click.option(
            "--shared-prefix-tokens",
            type=click.IntRange(0),
            help="So many first tokens are the same: a prefix cache finds them again.",
        ),
        click.option(
            "--output-tokens", default="128", show_default=True, metavar="LENGTHS", help=LENGTHS
        ),
        click.option(
            "--prompt-tokens", default="128", show_default=True, metavar="LENGTHS", help=LENGTHS
        ),
        click.option("--prompts", metavar="NAME", help="[prompts.NAME] of llmtop.toml."),
    ):
        function = option(function)
    return function


def typed(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags that stand on the command line: defaults give way to the file."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in flags.items()
        if context.get_parameter_source(name) is not default
    }


def prompts_of(given: Mapping[str, Any], config: Config, target: str) -> Prompts:
    """The prompts that were asked for; flags go before what a named set of prompts says.

    Files are read, or at least looked for, here: nothing has been sent yet. Raises UsageError.
    """
    from llmtop.loadgen import answer_format
    from llmtop.loadgen.lengths import parse_lengths, parse_pauses
    from llmtop.loadgen.prompts import check, prefix_room

    table = config.table.engines.get(target)
    named = given["prompts"] or (table.prompts if table is not None else "")
    base = config.prompts(named) if named else Prompts()
    flags = typed({name: given[name] for name in _AS_THEY_ARE})
    for name, read in (
        ("prompt_tokens", parse_lengths),
        ("output_tokens", parse_lengths),
        ("think", parse_pauses),
        ("json_schema", answer_format.load),
    ):
        if name in typed({name: None}):
            flags["think_s" if name == "think" else name] = read(given[name])
    if typed({"natural_end": True}):
        flags["ignore_eos"] = False
    if typed({"dataset": True}):
        flags["dataset"] = str(Path(given["dataset"]).absolute())
    if flags.get("shared_prefix_tokens") and not base.shared_prefix_share:
        flags.setdefault("shared_prefix_share", 1.0)
    prompts = replace(base, **flags)
    check(prompts)
    room = prefix_room(prompts)
    if room is not None:
        note(
            f"a shared prefix of {prompts.shared_prefix_tokens:,} tokens is longer than any prompt:"
            f" at most {room:,} of it are shared, see --prompt-tokens"
        )
    return prompts


_AS_THEY_ARE = (
    "shared_prefix_tokens",
    "shared_prefix_share",
    "repetitive",
    "temperature",
    "text",
    "turns",
    "chat",
)
