"""Faults of ``llmtop.toml``, each with its key, and the errors that show them with their line."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Struct, inspect

from llmtop import UsageError
from llmtop.config.lines import Key, line_of


class Fault(Struct, frozen=True):
    """A fault of one key. words: the message, without values of ``env``, which may be secret."""

    key: Key
    words: str
    hint: str = ""


class ConfigError(UsageError):
    """A fault in ``llmtop.toml``.

    file: its path as shown. line: counted from 1. key: the full name, "" for the whole file.
    """

    def __init__(self, file: str, line: int, key: str, words: str, hint: str = "") -> None:
        super().__init__(
            f"{file}:{line}: {key}: {words}" if key else f"{file}:{line}: {words}", hint
        )
        self.file = file
        self.line = line
        self.key = key


def error(file: str, lines: Mapping[Key, int], fault: Fault) -> ConfigError:
    """The error for a fault. lines: the line of each key."""
    return ConfigError(file, line_of(lines, fault.key), dotted(fault.key), fault.words, fault.hint)


def dotted(key: Key) -> str:
    """The full name of a key, such as ``engines.big.gpus[1]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def type_faults(value: object, kind: Any, key: Key = ()) -> Iterator[Fault]:
    """Yield a fault for each value that does not have the type ``kind``, at any depth.

    msgspec finds the same faults, but its messages write ``[...]`` for the name of a table.
    """
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    origin = get_origin(bare)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        if isinstance(value, dict):
            yield from _fields(value, bare, key)
            return
    elif origin is tuple:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from type_faults(item, get_args(bare)[0], (*key, index))
            return
    elif origin is types.UnionType and isinstance(value, dict):
        for part in get_args(bare):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from type_faults(value, part, key)
                return
    elif origin in (dict, Mapping):
        if isinstance(value, dict):
            for name, item in value.items():
                yield from type_faults(item, get_args(bare)[1], (*key, name))
            return
    elif not (isinstance(value, float) and not math.isfinite(value)):
        try:
            msgspec.convert(value, kind)
            return
        except msgspec.ValidationError:
            pass
    yield Fault(key, f"expected {_expected(inspect.type_info(kind))}")


def _fields(value: Mapping[str, object], kind: type[msgspec.Struct], key: Key) -> Iterator[Fault]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in value:
        if name in known:
            yield from type_faults(value[name], known[name].type, (*key, name))
        else:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            yield Fault((*key, name), "there is no such key", hint)
    for name, field in known.items():
        if field.required and name not in value:
            yield Fault(key, f"the key {name} is missing")


def _expected(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _expected(info.type)
        case inspect.IntType() | inspect.FloatType():
            word = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            if info.ge is not None and info.le is not None:
                return f"{word} from {info.ge:g} to {info.le:g}"
            return word if info.ge is None else f"{word}, at least {info.ge:g}"
        case inspect.StrType():
            return "text in quotes"
        case inspect.LiteralType():
            return " or ".join(map(str, info.values))
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType():
            is_int = isinstance(_without_metadata(info.item_type), inspect.IntType)
            return f"a list of {'whole numbers' if is_int else 'texts'}"
        case inspect.UnionType():
            return " or ".join(_expected(part) for part in info.types)
    return "a table"


def _without_metadata(info: inspect.Type) -> inspect.Type:
    return info.type if isinstance(info, inspect.Metadata) else info
