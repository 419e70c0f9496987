"""Finds, reads and checks ``llmtop.toml``."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct, field
from platformdirs import user_config_path

from llmtop import UsageError
from llmtop.config.faults import ConfigError, Fault, error, type_faults
from llmtop.config.lines import Key, lines_of
from llmtop.config.tables import ConfigTable, EngineTable, ShapeTable
from llmtop.engines.host.ownership import strange_part
from llmtop.loadgen.workload import structured_output
from llmtop.loadgen.workload.lengths import parse_lengths, parse_pauses
from llmtop.loadgen.workload.plan import Prompts

NAME = "llmtop.toml"
MAX_BYTES = 1 << 20
_T = TypeVar("_T")
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Config(Struct, frozen=True):
    """The checked configuration.

    file: the path as shown, "" without a file. folder: relative paths in the file are relative to
    it. lines: the line of each key, counted from 1.
    """

    table: ConfigTable = field(default_factory=ConfigTable)
    file: str = ""
    folder: Path = Path()
    lines: Mapping[Key, int] = field(default_factory=dict)

    def engine(self, name: str) -> EngineTable:
        """The engine of this name. Raises UsageError with the known names if there is none."""
        return _named(self, self.table.engines, name, "an engine", "engines")

    def shape(self, text: str) -> str:
        """A load shape as text: ``@NAME`` is looked up in the file, other text is returned.

        Raises UsageError for an unknown name.
        """
        return self.shape_table(text).shape

    def shape_table(self, text: str) -> ShapeTable:
        """The same as a table, with the loop and the arrivals of the shape.

        The path of a trace is relative to the folder of the file.
        """
        from llmtop.loadgen.workload.shape import anchored, parse
        from llmtop.loadgen.workload.trace import unread

        if not text.startswith("@"):
            return ShapeTable(text)
        found = _named(self, self.table.shapes, text[1:], "a shape", "shapes")
        table = ShapeTable(found) if isinstance(found, str) else found
        if not parse(table.shape, unread).is_recorded:
            return table
        loop: Literal["open"] = "open"
        return msgspec.structs.replace(table, shape=anchored(table.shape, self.folder), loop=loop)

    def prompts(self, name: str) -> Prompts:
        """The prompts of this name, with or without an ``@``. UsageError for an unknown name."""
        name = name.removeprefix("@")
        table = _named(self, self.table.prompts, name, "a set of prompts", "prompts")
        return Prompts(
            prompt_tokens=parse_lengths(table.prompt_tokens),
            output_tokens=parse_lengths(table.output_tokens),
            shared_prefix_tokens=table.shared_prefix_tokens,
            shared_prefix_share=table.shared_prefix_share,
            repetitive=table.repetitive,
            temperature=table.temperature,
            text=table.text,
            ignore_eos=table.ignore_eos,
            json_schema=self._json_schema(table.json_schema),
            chat=table.chat,
            turns=table.turns,
            think_s=parse_pauses(table.think),
            dataset=str(self._path(table.dataset)) if table.dataset else "",
        )

    def _json_schema(self, name: str) -> str:
        if not name or name == structured_output.BUILTIN:
            return structured_output.load(name) if name else ""
        return structured_output.load(str(self._path(name)))

    def _path(self, name: str) -> Path:
        """A path from the file, relative to the folder of the file; ``~`` is the home folder."""
        try:
            return self.folder / Path(name).expanduser()
        except RuntimeError:  # ~name: no such user
            return self.folder / name

    def slo(self, name: str) -> Mapping[str, float]:
        """The limits of this name in seconds (ttft, tpot, itl, e2e), with or without an ``@``.

        Raises UsageError for an unknown name.
        """
        from llmtop.config import checks

        name = name.removeprefix("@")
        return checks.limits(_named(self, self.table.slos, name, "an SLO", "slos"))

    def fault(self, key: Key, words: str, hint: str = "") -> ConfigError:
        """The error for a value that proved wrong after the file was read."""
        return error(self.file, self.lines, Fault(key, words, hint))


def chosen(flag: str | None, *, need: bool = False) -> Config:
    """The configuration in force: of ``--config FILE``, ``./llmtop.toml`` or the user's folder.

    flag: the FILE of ``--config``. The first file that exists is used. Without a file the defaults
    apply; with ``need`` a UsageError is raised. Raises the errors of ``load`` too.
    """
    places = [Path(NAME), user_config_path("llmtop") / NAME]
    if flag is not None:
        return load(Path(flag))
    for place in places:
        if place.exists() or place.is_symlink():
            if place.is_fifo():  # opening a pipe would block, and nobody asked for this one
                raise UsageError(f"{place} is a pipe", "give it with --config FILE to use it")
            # The file decides which programs start, so another user must not have written it.
            strange = strange_part(place)
            if strange is not None:
                raise UsageError(
                    f"{place} is not read: {strange[0]} belongs to the user {strange[1]}",
                    "give it with --config FILE to use it",
                )
            return load(place)
    if need:
        searched = " or ".join(str(place) for place in (Path.cwd() / NAME, places[1]))
        raise UsageError(
            f"there is no {NAME}: looked for {searched}", "write one, or give it with --config FILE"
        )
    return Config()


def load(path: Path) -> Config:
    """Read and check a file.

    Raises ConfigError, with file, line and key, for the first fault. Raises UsageError if the file
    cannot be read or is larger than 1 MiB.
    """
    from llmtop.config import checks  # slow to import, and not needed without a file

    shown = str(path)
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise UsageError(f"{shown} cannot be read: {str(why).lower()}", "check --config") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{shown} is longer than {MAX_BYTES:,} bytes", "is it the right file?")
    try:
        text = data.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ConfigError(shown, line, "", "this is not UTF-8; a TOML file must be") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _syntax_error(shown, text, problem) from None
    except RecursionError:
        raise ConfigError(shown, 1, "", "values are nested too deeply") from None
    lines = lines_of(text.replace("\r\n", "\n"))
    _raise_first(shown, lines, _unquoted(values))
    _raise_first(shown, lines, type_faults(values, ConfigTable))
    table = msgspec.convert(values, ConfigTable)
    _raise_first(shown, lines, checks.faults(table))
    folder = Path(os.path.abspath(path.expanduser())).parent
    return Config(table, shown, folder, lines)


def _unquoted(values: Mapping[str, object]) -> Iterator[Fault]:
    """Commands of [keys] that TOML parsed as tables: a name with a dot needs quotes."""
    keys = values.get("keys")
    for name, value in keys.items() if isinstance(keys, dict) else ():
        if isinstance(value, dict):
            inner = next(iter(value), "more")
            words = "a command with a dot in its name needs quotes"
            yield Fault(("keys", name), words, f'write "{name}.{inner}" = "w"')


def _raise_first(file: str, lines: Mapping[Key, int], faults: Iterable[Fault]) -> None:
    """Raise the error of the fault that is first in the file."""
    errors = sorted((error(file, lines, fault) for fault in faults), key=lambda e: e.line)
    if errors:
        raise errors[0]


def _syntax_error(file: str, text: str, problem: tomllib.TOMLDecodeError) -> ConfigError:
    message = str(problem)
    found = _AT.search(message)
    line = int(found[1]) if found and found[1] else text.rstrip().count("\n") + 1
    words = message[: found.start()] if found else message
    return ConfigError(file, line, "", f"this is not TOML: {words[:1].lower()}{words[1:]}")


def _named(config: Config, table: Mapping[str, _T], name: str, what: str, section: str) -> _T:
    if name in table:
        return table[name]
    if not config.file:
        raise UsageError(
            f"{what} {name!r} is not known: there is no {NAME}",
            "write one, or give it with --config FILE",
        )
    near = difflib.get_close_matches(name, table, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    known = f"there are: {', '.join(table)}" if table else f"it has no [{section}]"
    raise UsageError(f"{config.file} does not define {what} {name!r}", guess + known)
