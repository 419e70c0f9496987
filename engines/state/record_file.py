"""The file that an engine's record is kept in: its format, and what a sound one may hold."""

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
    """The state directory, or a part of it, belongs to another user: nothing in it is obeyed."""


class NewerRecord(StateError):
    """A record that a newer llmtop wrote."""


class _Header(msgspec.Struct):
    schema: int


class _RecordFile(msgspec.Struct):
    record: EngineRecord
    schema: int = SCHEMA


# Made here and not where a file is read: that is done on several threads, and when two of them are
# the first to ask msgspec 0.22 for one class's fields the process dies of a bad pointer.
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
            f"the record of {name!r} holds values that cannot be",
            f"use another name, or remove it; {left}",
        )
    if record.name != name:
        raise StateError(
            f"the record of {name!r} is that of another engine", f"use another name; {left}"
        )
    return record


def _sound(record: EngineRecord) -> bool:
    """Whether the values of a record can be used without surprise: it is only a file."""
    times = (record.started_at, record.ready_at, record.stop_requested_at, record.ended_at)
    spans = (record.startup_s, record.previous_startup_s)
    numbers = all(one is None or 0 <= one < _FAR for one in (*times, *spans))
    paths = (record.log_path, record.live_socket or "", record.url, record.spec.model)
    whole = 0 <= record.pid < 2**31 and 0 <= record.start_ticks < 2**63
    # The log is ours by its place; another path would have us read whatever it names.
    ours = Path(record.log_path).name == "engine.log"
    return numbers and whole and ours and not any("\0" in path for path in paths)
