"""Edits an engine's argument vector: changes options and keeps all other arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.options import OptionSpec, OptionValue
from llmtop.engines.tuning.argv_parser import flag_name


def with_options(
    adapter: Adapter, args: Sequence[str], changes: Mapping[str, OptionValue]
) -> tuple[str, ...]:
    """The arguments with these options changed, by the adapter's table.

    None leaves an option to the engine. UsageError for an unknown option, or a value that arguments
    cannot express.
    """
    if adapter.with_options is not None:
        return adapter.with_options(args, changes)
    return with_changed_flags(adapter.options, args, changes)


def with_changed_flags(
    table: Iterable[OptionSpec],
    args: Sequence[str],
    changes: Mapping[str, OptionValue],
    long: Callable[[str], str] = lambda name: name,
) -> tuple[str, ...]:
    """The same for a table of options that each have their own flag.

    A boolean option is a switch; the prefix ``--no-`` turns it off. If the engine's default is off,
    the switch is omitted, because some engines do not have the other form. long: returns the full
    name of a flag, for engines whose flags have aliases.
    """
    specs = {spec.name: spec for spec in table}
    changed = tuple(args)
    for name, value in changes.items():
        spec = specs.get(name)
        if spec is None:
            raise UsageError(f"there is no option {name!r}", "it has " + ", ".join(specs))
        flag = spec.flag.replace("_", "-")
        if spec.kind is bool:
            both = {flag, "--no-" + flag.removeprefix("--")}
            changed = replace_flags(changed, both, _switch(spec, value), long=long, switches=both)
        else:
            new = () if value is None else flag_with_value(spec.flag, str(value))
            changed = replace_flags(changed, {flag}, new, long=long)
    return changed


def replace_flags(
    args: Sequence[str],
    flags: Iterable[str],
    new: Sequence[str],
    *,
    long: Callable[[str], str] = lambda name: name,
    switches: Iterable[str] = (),
) -> tuple[str, ...]:
    """The arguments without these flags; ``new`` replaces the first one, or is appended.

    A flag is removed with all its values, unless it is one of ``switches``, which have none. A flag
    that ends in a dot means all flags with this prefix.
    """
    names = tuple(flags)
    without_value = set(switches)
    kept: list[str] = []
    first: int | None = None
    in_removed_flag = False
    for argument in args:
        name = flag_name(argument)
        if in_removed_flag and name is None:
            continue
        full = long(name) if name is not None else None
        if full is None or not _among(full, names):
            in_removed_flag = False
            kept.append(argument)
            continue
        first = len(kept) if first is None else first
        in_removed_flag = "=" not in argument and full not in without_value
    at = len(kept) if first is None else first
    return (*kept[:at], *new, *kept[at:])


def with_flags(args: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """The arguments with further ones appended; these replace earlier uses of the same flags.

    Both forms of a switch, ``--x`` and ``--no-x``, are the same flag.
    """
    names: set[str] = set()
    bare: set[str] = set()
    for position, argument in enumerate(extra):
        name = flag_name(argument)
        if name is None:
            continue
        plain = "--" + name.removeprefix("--no-").removeprefix("--") if name[:2] == "--" else name
        both = {name, plain, "--no-" + plain.removeprefix("--")}
        names |= both
        after = extra[position + 1] if position + 1 < len(extra) else None
        if "=" not in argument and (after is None or flag_name(after) is not None):
            bare |= both
    return (*replace_flags(args, names, (), switches=bare), *extra)


def without_flags(
    args: Sequence[str], flags: Iterable[str], long: Callable[[str], str] = lambda name: name
) -> tuple[str, ...]:
    """The arguments without these flags and their values.

    A flag is found by each of its names: with dashes or underscores, ``--x`` or ``--no-x``, short
    or long, together with its parts (``--x.part``). UsageError for a missing flag.
    """
    left = tuple(args)
    for flag in flags:
        bare = flag.partition("=")[0].strip().replace("_", "-")
        written = bare if bare.startswith("-") else f"--{bare}"
        name = long(written)
        plain = name.removeprefix("--no-").removeprefix("--")
        names = {name, f"--{plain}", f"--no-{plain}", f"--{plain}."} if plain[:1] != "-" else {name}
        kept = replace_flags(left, names, (), long=long)
        if kept == left:
            there = sorted({found for found in map(flag_name, left) if found is not None})
            raise UsageError(
                f"the engine was not started with {written}",
                f"it was started with {', '.join(there)}" if there else "it has no flags",
            )
        left = kept
    return left


def flag_with_value(flag: str, value: str) -> tuple[str, ...]:
    """A flag with its value; joined with ``=`` if the value looks like a flag."""
    return (f"{flag}={value}",) if value.startswith("-") else (flag, value)


def _switch(spec: OptionSpec, value: OptionValue) -> tuple[str, ...]:
    if value is None or (value is False and spec.default is False):
        return ()
    return (spec.flag,) if value else ("--no-" + spec.flag.removeprefix("--"),)


def _among(name: str, flags: Iterable[str]) -> bool:
    return any(name == flag or (flag.endswith(".") and name.startswith(flag)) for flag in flags)
