"""Whatever engines, models, logs and servers send, nothing that steers a terminal is shown."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.printable import clean, masked, printable
from tests.folders import ROOT

HOSTILE = st.text(st.characters(codec=None), max_size=300) | st.text(
    "\x1b[]m;1\x07P\\\x9b a", max_size=60
)
STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain [b]text[/b]", "plain [b]text[/b]"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1bPq#0;2;0\x1b\\after", "after"),
        ("a\x9b2Jb", "ab"),
        ("one\r\ntwo\tthree", "one two three"),
        ("bell\x07 null\x00", "bell null"),
        ("pay\u202elap", "paylap"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("z\u0316\u0317\u0318", "z"),
        ("lone \ud800 half", "lone  half"),
        ("tag\U000e0041 soft\u00ad private\ue000", "tag soft private"),
        ("\x1b[", ""),
        ("雪の日", "雪の日"),
    ],
)
def test_hostile_text_becomes_one_harmless_line(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


@given(HOSTILE)
def test_whatever_comes_in_nothing_that_steers_a_terminal_comes_out(text: str) -> None:
    out = clean(text)
    assert len(out) <= 400 and clean(out) == out
    assert len(printable(text, 20)) <= 20 and printable(printable(text)) == printable(text)
    assert len(masked(text)) == len(text)
    for shown in (out, printable(text), masked(text)):
        assert not [c for c in shown if unicodedata.category(c) in STEERING]


def test_a_megabyte_line_costs_no_more_than_its_beginning() -> None:
    out = clean("\x1b[31m" * 10 + "x" * 2_000_000, 50)
    assert re.fullmatch(r"x{49}…", out)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\nb\x00c", "a\ufffdb\ufffdc"),
        ("abc\u202edef\u200b\u2066", "abc\ufffddef\ufffd\ufffd"),
        ("\x1b]0;never ended", ""),
        ("a\tb", "a   b"),
        ("模型\u3000名", "模型\u3000名"),
    ],
)
def test_a_line_of_a_log_keeps_a_mark_for_each_hostile_character(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_a_box_keeps_its_width() -> None:
    assert masked("a\x1bb\u202e名") == "a?b?名"


def test_no_other_module_has_a_rule_of_its_own() -> None:
    # llmtop_live runs inside an engine, without llmtop.
    known = {"llmtop/printable.py", "engines/tuning/inside/llmtop_live/tunables.py"}
    own = re.compile(r"\.isprintable\(\) else .* for ")
    found = {
        path.relative_to(ROOT).as_posix()
        for part in ("engines", "loadgen", "tui", "themes", "llmtop")
        for path in (ROOT / part).rglob("*.py")
        if own.search(path.read_text())
    }
    assert found - known == set()
