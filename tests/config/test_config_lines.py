"""Which line a key of a TOML text is on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop.config.lines import Key, line_of, lines_of

TRICKY = '''\
title = "not # a comment"   # a comment
"quoted key" = 1
'literal.key' = """
[fake]
no = "header"
"""
a.b . "c d" = 1
"\\u00e9t\\u0065" = 2
list = [
    1,   # one ]
    "two, ]",
    [3,
     4], { x = 1, y.z = "}" },
]
empty = []
raw = \'\'\'it's [not.a.header]
x = 1\'\'\'\'\'
last = true
[ one . "two" ]
when = 2020-01-01 10:00:00
[one]
late = 1
[[many]]
n = 1
[[many]]
n = 2
[many.sub]
deep = { k = "v" }
'''


def keys(value: Any, at: Key = ()) -> Iterator[Key]:
    if at:
        yield at
    if isinstance(value, dict):
        for name, item in value.items():
            yield from keys(item, (*at, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys(item, (*at, index))


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("title",), 1),
        (("quoted key",), 2),
        (("literal.key",), 3),
        (("a", "b", "c d"), 7),
        (("\u00e9te",), 8),
        (("list",), 9),
        (("list", 0), 10),
        (("list", 1), 11),
        (("list", 2), 12),
        (("list", 2, 1), 13),
        (("list", 3, "y", "z"), 13),
        (("empty",), 15),
        (("raw",), 16),
        (("last",), 18),
        (("one", "two"), 19),
        (("one", "two", "when"), 20),
        (("one",), 19),
        (("one", "late"), 22),
        (("many", 0, "n"), 24),
        (("many", 1, "n"), 26),
        (("many", 1, "sub", "deep", "k"), 28),
    ],
)
def test_every_way_to_write_a_key_has_its_line(key: Key, line: int) -> None:
    assert lines_of(TRICKY)[key] == line


def test_every_key_that_tomllib_finds_is_found_and_no_other() -> None:
    assert set(lines_of(TRICKY)) == set(keys(tomllib.loads(TRICKY)))


def test_a_key_that_is_not_written_has_the_line_of_what_it_is_missing_from() -> None:
    lines = lines_of("\n[engines.big]\nport = 1\n")
    assert line_of(lines, ("engines", "big", "engine")) == 2
    assert line_of(lines, ("shapes", "x")) == 1
    assert line_of(lines, ()) == 1


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
names = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
values = st.recursive(
    st.integers(-(2**60), 2**60) | st.booleans() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any, indent: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {written(v, indent)}" for k, v in value.items()) + "}"
    return "[" + "".join(f"\n{indent}{written(item, indent)}, # ]}}" for item in value) + "\n]"


@settings(max_examples=40)  # large ones: each takes 25 ms
@given(st.dictionaries(names, st.dictionaries(words, values, max_size=4), max_size=4))
def test_any_text_that_tomllib_reads_is_walked_whole(tables: dict[str, dict[str, Any]]) -> None:
    text = ""
    lines: dict[Key, int] = {}
    for name, table in tables.items():
        lines[(name,)] = text.count("\n") + 1
        text += f"[{name}]\n"
        for key, value in table.items():
            lines[(name, key)] = text.count("\n") + 1
            text += f"{written(key, '')} = {written(value, '  ')}\n"
    assert tomllib.loads(text) == tables
    found = lines_of(text)
    assert set(found) == set(keys(tables))
    assert {key: found[key] for key in lines} == lines
