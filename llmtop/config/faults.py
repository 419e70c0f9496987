"""What is wrong in the file, each fault with the key that it is about and, in the end, its line."""

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
    """One thing that is wrong. words never quote a value of ``env``: it may be a secret."""

    key: Key
    words: str
    hint: str = ""


class ConfigError(UsageError):
    """A fault in ``llmtop.toml``. file: as shown; line: counted from 1; key: its full name."""

    def __init__(self, file: str, line: int, key: str, words: str, hint: str = "") -> None:
        super().__init__(
            f"{file}:{line}: {key}: {words}" if key else f"{file}:{line}: {words}", hint
        )
        self.file = file
        self.line = line
        self.key = key


def error(file: str, lines: Mapping[Key, int], fault: Fault) -> ConfigError:
    """The error that shows a fault."""
    return ConfigError(file, line_of(lines, fault.key), dotted(fault.key), fault.words, fault.hint)


def dotted(key: Key) -> str:
    """A key as it could be written in the file: ``engines.big.gpus[1]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def misshapen(value: object, kind: Any, key: Key = ()) -> Iterator[Fault]:
    """Every place at which a value is not of the kind that a table asks for.

    msgspec finds these too, but it calls the names of tables ``[...]``.
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
                yield from misshapen(item, get_args(bare)[0], (*key, index))
            return
    elif origin is types.UnionType and isinstance(value, dict):
        for part in get_args(bare):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from misshapen(value, part, key)
                return
    elif origin in (dict, Mapping):
        if isinstance(value, dict):
            for name, item in value.items():
                yield from misshapen(item, get_args(bare)[1], (*key, name))
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
            yield from misshapen(value[name], known[name].type, (*key, name))
        else:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
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
            many = (
                "whole numbers" if isinstance(_plain(info.item_type), inspect.IntType) else "texts"
            )
            return f"a list of {many}"
        case inspect.UnionType():
            return " or ".join(_expected(part) for part in info.types)
    return "a table"


def _plain(info: inspect.Type) -> inspect.Type:
    return info.type if isinstance(info, inspect.Metadata) else info
