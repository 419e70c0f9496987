"""The file of an engine's record: its format and its validation."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord

SCHEMA = 1
RECORD_BYTES = 2**20  # a record has some kilobytes
_FAR = 32503680000.0  # the year 3000, unix seconds


class StateError(LlmtopError):
    """The state directory cannot be read or written."""


class ForeignState(StateError):
    """The state directory, or a part of it, belongs to another user, so llmtop does not use it."""


class NewerRecord(StateError):
    """A record that a newer llmtop wrote."""


class _Header(msgspec.Struct):
    schema: int


class _RecordFile(msgspec.Struct):
    record: EngineRecord
    schema: int = SCHEMA


# Created at import: files are read on several threads, and msgspec 0.22 crashes (invalid pointer)
# when two threads are the first to use one class.
_header = msgspec.json.Decoder(_Header).decode
_record = msgspec.json.Decoder(_RecordFile).decode


def encode(record: EngineRecord) -> bytes:
    """A record as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(_RecordFile(record))) + b"\n"


def decode(data: bytes, name: str, left: str) -> EngineRecord:
    """The record of the engine ``name``. StateError when it cannot be used; left: its hint."""
    try:
        found = _header(data).schema
        if found > SCHEMA:
            raise NewerRecord(
                f"the record of {name!r} was written by a newer llmtop",
                f"use that llmtop, or another name; {left}",
            )
        record = _record(data).record
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(
            f"the record of {name!r} is damaged", f"use another name, or remove it; {left}"
        ) from error
    if not _sound(record):
        raise StateError(
            f"the record of {name!r} contains impossible values",
            f"use another name, or remove it; {left}",
        )
    if record.name != name:
        raise StateError(
            f"the record of {name!r} is that of another engine", f"use another name; {left}"
        )
    return record


def _sound(record: EngineRecord) -> bool:
    """Whether the values of a record are safe to use: anyone can edit a file."""
    times = (record.started_at, record.ready_at, record.stop_requested_at, record.ended_at)
    spans = (record.startup_s, record.previous_startup_s)
    numbers = all(one is None or 0 <= one < _FAR for one in (*times, *spans))
    paths = (record.log_path, record.live_socket or "", record.url, record.spec.model)
    whole = 0 <= record.pid < 2**31 and 0 <= record.start_ticks < 2**63
    # Accept only the log in llmtop's own folder: another path could name any file.
    ours = Path(record.log_path).name == "engine.log"
    return numbers and whole and ours and not any("\0" in path for path in paths)
