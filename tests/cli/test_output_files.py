"""Files that results are written to: regular ones, pipes with and without a reader, devices."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.cli.load.recording import Recording
from llmtop.cli.load.saving import check, first_failure, write
from llmtop.cli.main import run
from tests.report.results import load

LONG = "x" * 300_000  # more than a pipe holds
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "load.json"
    path.write_text(json.dumps(load()))
    return path


def pipe(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


def test_a_report_for_a_pipe_that_nobody_reads_is_one_clear_line(
    tmp_path: Path, result: Path, capsys: Capture
) -> None:
    page = pipe(tmp_path, "page.html")
    assert run(["report", str(result), "-o", str(page)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and f"{page} cannot be written: no process reads this pipe" in err


def test_a_report_for_a_pipe_arrives_whole_at_a_slow_reader(tmp_path: Path, result: Path) -> None:
    page, plain = pipe(tmp_path, "page.html"), tmp_path / "plain.html"
    assert run(["report", str(result), "-o", str(plain)]) == 0
    reader = os.open(page, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    found: list[str] = []

    def read() -> None:
        begun = select.poll()
        begun.register(reader, select.POLLIN)
        begun.poll()  # until there is a writer
        with open(reader, encoding="utf-8") as file:
            found.append(file.read())

    thread = threading.Thread(target=read)
    thread.start()
    code = run(["report", str(result), "-o", str(page)])
    thread.join()
    assert code == 0 and found[0].endswith("</html>\n")
    assert len(found[0]) == len(plain.read_text())  # the moment of its making may differ


WRITERS: list[Callable[[Path], object]] = [
    lambda path: write(path, LONG),
    lambda path: write(path, LONG, append=True),
    lambda path: Recording(str(path)),
]


@pytest.mark.parametrize("writer", WRITERS, ids=["--save", "--summary", "--save of a load"])
def test_no_command_waits_for_a_reader(tmp_path: Path, writer: Callable[[Path], object]) -> None:
    with pytest.raises(LlmtopError, match="cannot be written: no process reads this pipe"):
        writer(pipe(tmp_path, "run.jsonl"))


def test_a_file_is_replaced_or_appended_to_and_devices_are_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        write(path, "a\r\nb")
    assert path.read_bytes() == b"a\r\nb"
    write(path, "c", append=True)
    assert path.read_bytes() == b"a\r\nbc"
    write(Path("/dev/null"), LONG)
    with pytest.raises(LlmtopError, match="cannot be written: No space left"):
        write(Path("/dev/full"), LONG)
    with pytest.raises(LlmtopError, match="cannot be written: Is a directory"):
        write(tmp_path, "")


def test_a_dash_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file name") as error:
        check(["-"])
    assert "--json" in error.value.hint


def test_a_folder_in_place_of_a_file_is_refused_before_the_measurement(
    tmp_path: Path,
) -> None:
    for files, page in (([str(tmp_path)], None), ([], str(tmp_path / "page.html"))):
        (tmp_path / "page.html").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="cannot be written: it is a folder"):
            check(files, report_file=page)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission_is_refused_before_the_measurement(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.touch(mode=0o400)
    with pytest.raises(UsageError, match="permission denied"):
        check([str(path)])
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="permission denied"):
        check([str(tmp_path / "new.json")])


def test_a_file_that_cannot_be_written_loses_neither_the_others_nor_the_first_reason(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.json"
    first = first_failure(
        [
            lambda: write(Path("/dev/full"), LONG),
            lambda: write(tmp_path, LONG),
            lambda: write(path, "whole"),
        ]
    )
    assert path.read_text() == "whole"
    assert first is not None and "/dev/full" in first.message
    assert first_failure([]) is None
