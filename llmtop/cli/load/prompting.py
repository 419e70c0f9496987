"""The prompts of a load: the options of the commands that send load, merged with llmtop.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtop.cli.common.output import note
from llmtop.cli.common.param_types import Real
from llmtop.loadgen.workload.plan import Prompts
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.config.file import Config

LENGTHS = '128, 64..256 or "lognormal 512 cv 0.8 max 4096".'


def prompt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; ``prompts_of`` converts them."""
    for option in (
        click.option(
            "--model", help="Model name in the requests (default: the model that is served)."
        ),
        click.option("--chat", is_flag=True, help="Send chats (/v1/chat/completions)."),
        click.option(
            "--think",
            default="0",
            show_default=True,
            metavar="PAUSES",
            help='Pause before the next turn: 2s, 1s..5s or "lognormal 5s cv 1 max 60s".',
        ),
        click.option(
            "--turns",
            default=1,
            show_default=True,
            type=click.IntRange(1, 1000),
            help="Turns per conversation; each turn sends the whole conversation so far.",
        ),
        click.option(
            "--dataset",
            metavar="FILE",
            help="Read prompts from a ShareGPT JSON file or JSON lines.",
        ),
        click.option(
            "--json-schema",
            metavar="FILE|builtin",
            help="Require answers to match this JSON schema (structured output).",
        ),
        click.option(
            "--natural-end",
            is_flag=True,
            help="Let the model end answers early; --output-tokens is then the upper limit.",
        ),
        click.option(
            "--temperature",
            default=1.0,
            show_default=True,
            type=Real(0, 2),
            help="Sampling temperature.",
        ),
        click.option("--text", is_flag=True, help="Send words instead of token ids."),
        click.option(
            "--repetitive",
            is_flag=True,
            help="Send repetitive prompts, which n-gram speculation predicts well.",
        ),
        click.option(
            "--shared-prefix-share",
            type=Real(0, 1),
            help="Share of requests with the common prefix (default: 1 if there is one).",
        ),
        click.option(
            "--shared-prefix-tokens",
            type=click.IntRange(0),
            help="Length of the common prompt prefix, in tokens; a prefix cache can reuse it.",
        ),
        click.option(
            "--output-tokens",
            default="128",
            show_default=True,
            metavar="LENGTHS",
            help="Length of answers, in tokens; as --prompt-tokens.",
        ),
        click.option(
            "--prompt-tokens",
            default="128",
            show_default=True,
            metavar="LENGTHS",
            help=f"Length of prompts, in tokens: {LENGTHS}",
        ),
        click.option("--prompts", metavar="NAME", help="Use [prompts.NAME] of llmtop.toml."),
    ):
        function = option(function)
    return function


def exact_answers(prompts: Prompts) -> bool:
    """Whether answers have exactly the requested length: requests contain ``ignore_eos``."""
    return prompts.ignore_eos and not prompts.json_schema


def explicit(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user gave. Defaults do not override the file."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in flags.items()
        if context.get_parameter_source(name) is not default
    }


def prompts_of(params: Mapping[str, Any], config: Config, target: str) -> Prompts:
    """The prompts of a load. Options override those of a named set of prompts.

    target: the engine's name; its table in the file may name the prompts. Missing or invalid files
    raise UsageError here, before any request is sent.
    """
    from llmtop.loadgen.workload import structured_output
    from llmtop.loadgen.workload.lengths import parse_lengths, parse_pauses
    from llmtop.loadgen.workload.prompts import check, prefix_room

    table = config.table.engines.get(target)
    named = params["prompts"] or (table.prompts if table is not None else "")
    base = config.prompts(named) if named else Prompts()
    flags = explicit({name: params[name] for name in _UNCHANGED})
    for name, read in (
        ("prompt_tokens", parse_lengths),
        ("output_tokens", parse_lengths),
        ("think", parse_pauses),
        ("json_schema", structured_output.load),
    ):
        if name in explicit({name: None}):
            flags["think_s" if name == "think" else name] = read(params[name])
    if explicit({"natural_end": True}):
        flags["ignore_eos"] = False
    if explicit({"dataset": True}):
        flags["dataset"] = str(Path(params["dataset"]).absolute())
    if flags.get("shared_prefix_tokens") and not base.shared_prefix_share:
        flags.setdefault("shared_prefix_share", 1.0)
    prompts = replace(base, **flags)
    check(prompts)
    room = prefix_room(prompts)
    if room is not None:
        note(
            f"the common prefix of {prompts.shared_prefix_tokens:,} tokens is longer than any"
            f" prompt: at most {room:,} tokens are shared; see --prompt-tokens"
        )
    return prompts


_UNCHANGED = (  # options with the name and the value of a field of Prompts
    "shared_prefix_tokens",
    "shared_prefix_share",
    "repetitive",
    "temperature",
    "text",
    "turns",
    "chat",
)
