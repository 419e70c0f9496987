"""Reading an engine's argument vector: what the operator gave, in whichever form.

Engines take ``--flag value`` and ``--flag=value``, dashes or underscores inside the name, and the
last one given counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmtop.engines.core.options import OptionSpec, OptionValue

DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9}
BINARY = {"K": 2**10, "M": 2**20, "G": 2**30}


def flag_name(argument: str) -> str | None:
    """The flag that an argument is, dashes for underscores and without its value; else None."""
    if not argument.startswith("-") or argument in ("-", "--") or _is_number(argument):
        return None
    return argument.partition("=")[0].replace("_", "-")


def given(args: Sequence[str], *flags: str) -> bool:
    """Whether any of these flags is among the arguments, in either form."""
    return any(flag_name(argument) in flags for argument in args)


def last_value(args: Sequence[str], *flags: str) -> str | None:
    """What the last of these flags was given; "" for a bare switch, None when none is there."""
    found = None
    for name, value in pairs(args):
        if name in flags:
            found = value
    return found


def pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each flag with its value, "" for a bare switch; what stands alone is left out."""
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
    """What each option was launched with, by its name; only those that the arguments tell of.

    A boolean option is its switch, with ``--no-`` in front to turn it off. A value that cannot be
    read as the option's kind is left out: the engine itself will say what it thinks of it.
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
    """The text as a value of this kind, None when it is none.

    Whole numbers may carry the suffixes that vLLM reads: 1k is 1000, 1K is 1024.
    """
    if kind is str:
        return text
    if not text.isascii():  # digits of other scripts, which no engine reads
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
