from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload import shape, trace
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.loadgen.workload.schedule import Schedule, check

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""


def write(folder: Path, text: str, name: str = "trace") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "seconds", "prompt", "output"),
    [
        ("0.5\n1.0\n\n# a remark\n2.25\n", [0, 0.5, 1.75], [0, 0, 0], [0, 0, 0]),
        ("1795326110.5\n1795326111\n", [0, 0.5], [0, 0], [0, 0]),
        (AZURE, [0, 4.314579, 4.541977], [374, 396, 879], [44, 109, 55]),
        (AZURE_2024, [0, 0.007405], [2162, 2399], [5, 6]),
        (
            '{"timestamp": 10, "prompt_tokens": 7}\n{"timestamp": 12, "output_tokens": 9}\n',
            [0, 2],
            [7, 0],
            [0, 9],
        ),
        ('\ufeff{"Timestamp": 0, "input_length": 3}\n', [0], [3], [0]),
        ("time,prompt_tokens\n3,5\n3,\n", [0, 0], [5, 0], [0, 0]),
    ],
)
def test_what_a_trace_may_be(
    tmp_path: Path, text: str, seconds: list[float], prompt: list[int], output: list[int]
) -> None:
    found = trace.read(write(tmp_path, text))
    assert [at / NS for at in found.at_ns] == pytest.approx(seconds, abs=2e-6)
    assert (list(found.prompt), list(found.output)) == (prompt, output)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("1\n2\nx\n", 3, "'x' is not a timestamp"),
        ("1\n\nnan\n", 3, "is not a timestamp"),
        ("2\n1\n", 2, "earlier than the one before"),
        ('{"timestamp": 1}\n{"time": 2}\n{"at": 3}\n', 3, "no timestamp"),
        ('{"timestamp": 1}\n{"timestamp": 2\n', 2, "not a JSON object"),
        ('{"timestamp": [1]}\n', 1, "not a timestamp"),
        ('{"timestamp": 1, "prompt_tokens": -3}\n', 1, "not a number of tokens"),
        ("a,b\n1,2\n", 1, "has no timestamp column"),
        ("time,prompt_tokens\n1,2\n1\n", 3, "1 cells, but the header has 2"),
        ("time,prompt_tokens\n1,x\n", 2, "'x' is not a number of tokens"),
        ("1\n" + "2" * 70_000, 2, "too long"),
    ],
)
def test_what_is_no_trace_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        trace.read(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert words in caught.value.message


def test_an_empty_trace_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no arrivals"):
        trace.read(write(tmp_path, "\n\n"))
    with pytest.raises(UsageError, match="cannot be read: no such file"):
        trace.read(str(tmp_path / "nothing"))


def test_only_so_many_arrivals_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_ARRIVALS", 100)
    path = write(tmp_path, "".join(f"{at / 10}\n" for at in range(1000)))
    with pytest.raises(UsageError, match="more than 100 arrivals"):
        trace.read(path)
    assert len(trace.read(path, 1.0, 5.0).at_ns) == 50


def test_a_shape_replays_a_trace_faster_and_for_a_while(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"{at / 10}\n" for at in range(100)), "a, b.txt")
    found = shape.parse(f'hold 3 for 2s, Trace "{path}" speed 2 for 4s, hold 1s')
    assert found.duration == 7
    assert [found.level(at) for at in (1, 2.5, 5.5, 6.5)] == [3, 20, 20, pytest.approx(20, rel=0.1)]
    assert [found.flow(at) for at in (1, 2.5, 6.5)] == [3, 0, found.level(6.5)]
    assert found.highest == pytest.approx(20, rel=0.05)
    moments = [at / NS for at, _ in found.recorded(0, 10 * NS)]
    assert moments == pytest.approx([2 + at / 20 for at in range(80)])
    assert found.recorded(0, 2 * NS) == []
    assert len(found.recorded(3 * NS, 4 * NS)) == 20


def test_a_whole_trace_ends_after_its_last_arrival(tmp_path: Path) -> None:
    found = shape.parse(f"trace {write(tmp_path, AZURE)}")
    assert found.duration == pytest.approx(4.543, abs=0.001)
    assert len(found.recorded(0, 60 * NS)) == 3


@pytest.mark.parametrize(
    "text", ["trace", "trace x speed", "trace x for", 'trace "x', "trace {path} speed 0"]
)
def test_a_trace_that_is_written_wrongly(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        shape.parse(text.replace("{path}", write(tmp_path, "1\n")))


def test_files_of_a_shape_may_lie_in_another_folder(tmp_path: Path) -> None:
    write(tmp_path, "1\n2\n", "day.txt")
    anchored = shape.anchored("hold 3 for 2s, trace day.txt speed 2 for 1s", tmp_path)
    assert anchored == f'hold 3 for 2s, trace "{tmp_path}/day.txt" speed 2 for 1s'
    assert shape.parse(anchored).is_recorded
    assert shape.anchored(anchored, Path("/elsewhere")) == anchored
    assert shape.parse("trace day.txt", trace.unread).is_recorded  # without looking for it


def test_a_closed_loop_cannot_follow_a_trace(tmp_path: Path) -> None:
    text = f"trace {write(tmp_path, '1')}"
    with pytest.raises(UsageError, match="so it needs the open loop"):
        check(Plan(Loop.CLOSED, text))
    assert check(Plan(Loop.OPEN, text)).is_recorded


def test_keys_steer_a_trace_too(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"{at / 10}\n" for at in range(600)))
    schedule = Schedule(Plan(Loop.OPEN, f"trace {path}"), start_ns=0, since_ns=0)
    assert len(schedule.recorded(0, NS)) == 10
    held = schedule.hold_at(50, 2 * NS)
    assert held.recorded(3 * NS, 4 * NS) == [] and held.flow(3 * NS) == 50
    on = held.resume(5 * NS)  # it stood still for three seconds
    assert on.recorded(5 * NS, 6 * NS)[0] == (5 * NS, (0, 0))
    assert on.level(5 * NS) == schedule.level(2 * NS) and on.flow(5 * NS) == 0
    burst = on.burst(99, 2, 6 * NS)
    assert burst.recorded(6 * NS, 8 * NS) == [] and burst.flow(7 * NS) == 99
    assert len(burst.recorded(7 * NS, 9 * NS)) == 10
    assert burst.stop(False, 8 * NS).recorded(8 * NS, 20 * NS) == []
