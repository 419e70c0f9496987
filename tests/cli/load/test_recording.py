"""The file that ``llmtop load --save`` writes, against its published schema."""

import csv
import json
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.cli.load.recording import Recording
from llmtop.loadgen.core.results import Fate, Remark, RequestRecord
from llmtop.loadgen.export.records import COLUMNS, schema
from tests.folders import ROOT

PUBLISHED = ROOT / "docs" / "schema" / "requests.schema.json"
GOOD = RequestRecord(
    1.0,
    1.5,
    2.0,
    2.5,
    4.5,
    16,
    5,
    False,
    Fate.OK,
    first_reasoning=2.25,
    turn=2,
    cached_tokens=8,
    gaps_us=(500000, 1500000),
    chunks=3,
    request_id="llmtop-0a1b2c3d-0000000007",
    remarks=(Remark.CONTENT_LIST, Remark.OUTPUT_BELOW),
)
BAD = RequestRecord(2.0, None, None, None, None, None, 0, True, Fate.FAILED, "connection refused")


def test_the_published_schema_is_that_of_the_rows() -> None:
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(schema())), "make schema"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recording = Recording(str(path), began=1000.0)
    recording.add(GOOD)
    recording.add(BAD)
    recording.close()
    good, bad = map(json.loads, path.read_text().splitlines())
    (fields,) = (found["properties"] for found in schema()["$defs"].values())
    assert set(good) == set(bad) == set(fields)
    assert good == {
        "time": 1001.0, "turn": 2, "fate": "ok", "error": "", "intended_s": 1.0, "sent_s": 1.5,
        "first_byte_s": 2.0, "first_content_s": 2.5, "first_reasoning_s": 2.25,
        "last_token_s": 4.5, "prompt_tokens": 16, "cached_tokens": 8, "output_tokens": 5,
        "counted": False, "ttft_s": 1.25, "service_ttft_s": 0.75, "tpot_s": 0.5625, "e2e_s": 3.5,
        "service_e2e_s": 3.0, "itls_s": [0.5, 1.5], "chunks": 3,
        "request_id": "llmtop-0a1b2c3d-0000000007",
        "remarks": ["content comes as a list of parts", "fewer output tokens than asked for"],
    }  # fmt: skip
    assert (bad["fate"], bad["error"], bad["sent_s"]) == ("failed", "connection refused", None)
    assert bad["itls_s"] is None


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    recording = Recording(str(path), began=0.0)
    recording.add(GOOD)
    recording.add(BAD)
    recording.close()
    good, bad = csv.DictReader(path.read_text().splitlines())
    assert list(good) == list(COLUMNS)
    assert (good["itls_s"], bad["itls_s"]) == ("0.5 1.5", "")
    assert good["request_id"] == "llmtop-0a1b2c3d-0000000007"
    assert good["remarks"].split("|")[1] == "fewer output tokens than asked for"
    assert bad["remarks"] == ""
    assert (good["ttft_s"], good["turn"], bad["ttft_s"], bad["error"]) == (
        "1.25", "2", "", "connection refused",
    )  # fmt: skip


def test_what_cannot_be_written_is_said_before_the_load(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither .csv nor .jsonl"):
        Recording(str(tmp_path / "run.txt"))
    with pytest.raises(UsageError, match="no such file"):
        Recording(str(tmp_path / "none" / "run.csv"))


def test_a_full_disk_is_said_at_the_end_and_does_not_end_the_load(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.symlink_to("/dev/full")
    recording = Recording(str(path))
    for _ in range(2000):
        recording.add(GOOD)
    with pytest.raises(LlmtopError, match="not complete: no space left"):
        recording.close()
