"""Values of flags: lengths of time in every usual form, numbers in ASCII digits alone."""

from __future__ import annotations

import click
import pytest

from llmtop import UsageError
from llmtop.cli.common.command_table import COMMANDS
from llmtop.cli.common.param_types import Real, Span, check_digits
from llmtop.cli.main import group
from llmtop.loadgen.workload.lengths import parse_lengths, parse_pauses
from llmtop.loadgen.workload.shape import parse as shape
from llmtop.wording.durations import seconds_of
from tests.llmtop_process import Home
from tests.metric_page import parse as exposition

# Options that say how long, of all commands.
TIMES = {
    "load": {"duration", "timeout"},
    "saturate": {"level_seconds", "timeout"},
    "compare": {"run_seconds", "timeout"},
    "once": {"window"},
    "abort": {"longer_s"},
    "why": {"window"},
    "run": {"ready_timeout", "interval"},
    "up": {"ready_timeout"},
    "restart": {"ready_timeout", "drain"},
    "set": {"ready_timeout", "drain", "watch_for"},
    "stop": {"grace"},
    "down": {"grace"},
    "attach": {"interval"},
    "demo": {"interval"},
    "forecast": {"listen"},
    "tune": {"run_seconds", "max_time", "timeout"},
    "hold": {"seconds"},
    "check": {"timeout"},
    "record": {"duration", "interval"},
    "replay": {"interval"},
    "fleet": {"interval"},
    "export": {"interval"},
    "watch": {"interval"},
}
WORDS = ("seconds", "timeout", "duration", "window", "grace", "drain", "interval")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2), ("0.5", 0.5), (".5", 0.5), ("1e3", 1000), ("500ms", 0.5), ("2s", 2), ("5m", 300),
        ("1h", 3600), ("1.5h", 5400), ("1h30m", 5400), ("1m 30s", 90), ("2 s", 2), ("1d", 86400),
        ("", None), ("s", None), ("5q", None), ("2 weeks", None), ("nan", None), ("inf", None),
        ("1e999", None), ("\uff12s", None), ("\u0663", None), ("1_0", None), ("1,5", None),
        ("-1", -1),
    ],
)  # fmt: skip
def test_a_length_of_time_is_read_as_people_write_it(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_every_option_that_says_how_long_takes_every_form() -> None:
    for verb in COMMANDS:
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        spans = {param.name for param in command.params if isinstance(param.type, Span)}
        assert spans == TIMES.get(verb, set())
        for param in command.params:
            if any(word in (param.name or "") for word in WORDS):
                assert param.name in spans, (verb, param.name)


@pytest.mark.parametrize(
    ("text", "words"), [("x", "500ms, 2s, 5m, 1h"), ("-1", "'-1' is not from 1ms to 7d")]
)
def test_what_is_no_length_of_time_says_how_one_is_written(text: str, words: str) -> None:
    with pytest.raises(click.BadParameter, match=words):
        Span(low=0.001).convert(text, None, None)


def test_numbers_are_written_in_ascii_digits_alone() -> None:
    for text in ("\uff12", "\u0662\u0663"):
        assert float(text) > 0  # as Python reads it
        with pytest.raises(UsageError, match="not a number"):
            check_digits(f"max_num_seqs={text}")
        with pytest.raises(click.BadParameter):
            Real(0, 100).convert(text, None, None)
        for read in (parse_lengths, parse_pauses):
            with pytest.raises(UsageError):
                read(text)
        with pytest.raises(UsageError):
            shape(f"hold {text} for 5s")
    for word in ("llm\u00e4ma-\uff12", "/models/\u0662/x", "64", "r\u00e9sum\u00e9"):
        check_digits(word)


def test_a_value_in_other_digits_is_no_value() -> None:
    text = 'a:x 1\na:y \uff12\na:z 1_0\na:w{k="\u0663"} 3\n'
    found = exposition(text, ("a:",))
    assert found.value("a:x") == 1
    assert found.value("a:y") is None
    assert found.value("a:z") is None
    assert found.value("a:w") == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("load", "x", "-c", "\uff12"), "not a number"),
        (("set", "x", "max_num_seqs=\u0666\u0664"), "not a number"),
        (("once", "x", "--window", "5q"), "2s, 5m"),
        (("once", "x", "--window", "1h"), "from 200ms to 10m"),
        (("stop", "x", "--grace", "\uff12s"), "not a number"),
    ],
)
def test_on_the_command_line_it_costs_one_line(
    tmp_path_factory: pytest.TempPathFactory, args: tuple[str, ...], words: str
) -> None:
    done = Home.make(tmp_path_factory.mktemp("home")).run(*args)
    assert done.code == 2 and words in done.err
    assert len(done.err.splitlines()) == 2
