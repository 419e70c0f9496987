"""Parses an engine's argument vector in all its forms.

Engines accept ``--flag value`` and ``--flag=value``, and dashes or underscores inside the name. The
last use of a flag counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmtop.engines.core.options import OptionSpec, OptionValue

DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9}
BINARY = {"K": 2**10, "M": 2**20, "G": 2**30}


def flag_name(argument: str) -> str | None:
    """The flag of an argument, with dashes and without its value; None for another argument."""
    if not argument.startswith("-") or argument in ("-", "--") or _is_number(argument):
        return None
    return argument.partition("=")[0].replace("_", "-")


def has_flag(args: Sequence[str], *flags: str) -> bool:
    """Whether one of these flags is among the arguments, in either form."""
    return any(flag_name(argument) in flags for argument in args)


def last_value(args: Sequence[str], *flags: str) -> str | None:
    """The value of the last of these flags; "" for a switch, None without the flag."""
    found = None
    for name, value in pairs(args):
        if name in flags:
            found = value
    return found


def pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each flag with its value, "" for a switch; positional arguments are skipped."""
    for position, argument in enumerate(args):
        name = flag_name(argument)
        if name is None:
            continue
        if "=" in argument:
            yield name, argument.partition("=")[2]
            continue
        following = args[position + 1] if position + 1 < len(args) else None
        alone = following is None or flag_name(following) is not None
        yield name, "" if following is None or alone else following


def launch_values(options: Iterable[OptionSpec], args: Sequence[str]) -> dict[str, OptionValue]:
    """The launch value of each option, by name; only options among the arguments.

    A boolean option is a switch; the prefix ``--no-`` turns it off. A value of a wrong type is
    skipped: the engine will report it.
    """
    found: dict[str, OptionValue] = {}
    for spec in options:
        if spec.kind is bool:
            off = "--no-" + spec.flag.removeprefix("--")
            for name, _ in pairs(args):
                if name in (spec.flag, off):
                    found[spec.name] = name == spec.flag
        elif text := last_value(args, spec.flag):
            value = read_value(text, spec.kind)
            if value is not None:
                found[spec.name] = value
    return found


def read_value(text: str, kind: type) -> OptionValue:
    """The text as a value of this type, None if it is invalid.

    Whole numbers may have vLLM's suffixes: 1k is 1000, 1K is 1024.
    """
    if kind is str:
        return text
    if not text.isascii():  # Python accepts digits of other scripts, engines do not
        return None
    try:
        if kind is float:
            return float(text)
        scale = DECIMAL.get(text[-1:], 0) or BINARY.get(text[-1:], 0)
        return int(float(text[:-1]) * scale) if scale else int(text)
    except (ValueError, OverflowError):
        return None


def _is_number(argument: str) -> bool:
    return argument[1:2].isdigit()
