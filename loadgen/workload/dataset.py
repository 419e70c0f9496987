"""Prompts from a file: ShareGPT's JSON, or JSON lines. Read once; a bounded sample is kept."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import msgspec

from llmtop import UsageError
from llmtop.loadgen.workload.lengths import MAX_TOKENS
from llmtop.loadgen.workload.plan import Prompts

MAX_ENTRIES = 20_000
MAX_SAMPLE = 32 << 20  # bytes of prompts kept; each worker holds them
MAX_RECORD = 4 << 20  # characters of one record
CHARACTERS = 4  # a token: how long an answer was is only known in characters
_CHUNK = 1 << 20
_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant",
    "chatgpt": "assistant", "assistant": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
_LIMITS = ("max_tokens", "output_tokens", "max_completion_tokens")
_HINT = "docs/reference/load.md describes datasets"


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One prompt or conversation. asked: the message of each turn, as JSON, ready to be sent.

    output_tokens: of each answer; 0: not given.
    """

    asked: list[bytes]
    output_tokens: list[int]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.asked)) + 32


pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(list[Entry]).decode


def sample(path: str, *, chat: bool, turns: int, seed: int) -> list[Entry]:
    """A file's entries in an order that the seed decides; of a large file a fair sample.

    Every record is read and checked. Raises UsageError that names file and line.
    """
    chosen = random.Random(f"dataset {seed}")
    kept: list[Entry] = []
    room, size, seen = MAX_ENTRIES, 0, 0
    for entry in _entries(path, chat, turns):
        # Vitter's algorithm R: after n records each of them is kept equally likely.
        seen += 1
        if len(kept) < room:
            kept.append(entry)
        elif (place := chosen.randrange(seen)) < room:
            size -= kept[place].size
            kept[place] = entry
        else:
            continue
        size += entry.size
        while size > MAX_SAMPLE and len(kept) > 1:
            # Half of a fair sample is a fair sample; from now on there is room for that many.
            kept = chosen.sample(kept, len(kept) // 2)
            room, size = len(kept), sum(one.size for one in kept)
    if not kept:
        raise UsageError(f"{path} holds no prompts", _HINT)
    chosen.shuffle(kept)
    return kept


@contextmanager
def handed(prompts: Prompts, chat: bool, seed: int) -> Iterator[tuple[list[int], int, int | None]]:
    """The sample in a file without a name, to be handed to the workers: descriptors of files, its
    size in bytes, and how many different prompts there are. No file and None without a dataset."""
    if not prompts.dataset:
        yield [], 0, None
        return
    entries = sample(prompts.dataset, chat=chat, turns=prompts.turns, seed=seed)
    packed = pack(entries)
    fd = os.memfd_create("llmtop-dataset", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(packed)
        yield [fd], len(packed), len({entry.asked[0] for entry in entries})
    finally:
        os.close(fd)


def _entries(path: str, chat: bool, turns: int) -> Iterator[Entry]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for where, record in _records(path, file):
                entry = _entry(where, record, chat, turns)
                if entry is not None:
                    yield entry
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise UsageError(f"{path} is not UTF-8, which JSON is written in", _HINT) from None
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"{path} cannot be read: {why.lower()}", "check the name of the dataset"
        ) from None


def _records(path: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    """Each record and where it stands, for an error."""
    line = 1
    while (text := file.readline(_CHUNK)) and not text.strip():
        line += 1
    if text.lstrip().startswith("["):
        yield from _of_array(path, file, text, line)
    elif text:
        yield from _of_lines(path, file, text, line)


def _of_lines(path: str, file: TextIO, text: str, line: int) -> Iterator[tuple[str, Any]]:
    if not text.endswith("\n"):
        text += file.readline(MAX_RECORD)
    while text:
        where = f"{path}:{line}"
        if len(text) > MAX_RECORD:
            raise _fault(where, f"a record above {MAX_RECORD:,} characters")
        if text.strip():
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                raise _fault(where, "this is not JSON") from None
            yield where, found
        text = file.readline(MAX_RECORD + 1)
        line += 1


def _of_array(path: str, file: TextIO, text: str, line: int) -> Iterator[tuple[str, Any]]:
    decode, number = json.JSONDecoder().raw_decode, 0
    at, ended = text.index("[") + 1, False
    line += text.count("\n", 0, at)
    while True:
        begin = at
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        line += text.count("\n", begin, at)
        if at < len(text) and text[at] == "]":
            return
        where = f"{path}:{line}: record {number + 1}"
        found: Any = None
        if at < len(text):
            if text[at] != "{":
                raise _fault(where, "this is not a JSON object")
            try:
                found, end = decode(text, at)
            except RecursionError:
                raise _fault(where, "the JSON is nested too deeply") from None
            except ValueError:
                if ended:
                    raise _fault(where, "this is not JSON, or it is not complete") from None
                if len(text) - at > MAX_RECORD:
                    words = f"this is not JSON, or above {MAX_RECORD:,} characters"
                    raise _fault(where, words) from None
        if found is None:
            if ended:
                raise _fault(where, "the list does not end: ] is missing")
            more = file.read(_CHUNK)
            text, at, ended = text[at:] + more, 0, not more
            continue
        number += 1
        yield where, found
        line += text.count("\n", at, end)
        at = end


def _entry(where: str, record: Any, chat: bool, turns: int) -> Entry | None:
    if not isinstance(record, dict):
        raise _fault(where, "this is not a JSON object")
    if "conversations" in record:
        return _conversation(where, record["conversations"], chat, turns)
    given = next((record[name] for name in _LIMITS if record.get(name) is not None), 0)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= MAX_TOKENS:
        raise _fault(where, "max_tokens is not a number of tokens")
    if "messages" in record:
        messages = record["messages"]
        if not chat:
            raise _fault(where, "messages are for chats", "add --chat")
        if not isinstance(messages, list) or not messages:
            raise _fault(where, "messages is not a list of messages")
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise _fault(where, "a message needs a role and content")
        return Entry([b",".join(_json(message) for message in messages)], [given])
    if "prompt" not in record:
        raise _fault(where, "it has no prompt, messages or conversations")
    prompt = record["prompt"]
    if isinstance(prompt, str) and prompt:
        asked = {"role": "user", "content": prompt} if chat else prompt
        return Entry([_json(asked)], [given])
    ids = isinstance(prompt, list) and all(type(token) is int and token >= 0 for token in prompt)
    if not ids or not prompt:
        raise _fault(where, "the prompt is neither text nor a list of token ids")
    if chat:
        raise _fault(where, "token ids cannot be sent in a chat", "omit --chat")
    return Entry([_json(prompt)], [given])


def _conversation(where: str, said: Any, chat: bool, turns: int) -> Entry | None:
    """The user's turns, each with the length of the answer that it got then; None without any."""
    if not isinstance(said, list):
        raise _fault(where, "conversations is not a list")
    asked: list[bytes] = []
    lengths: list[int] = []
    system = b""
    for message in said:
        fields = message if isinstance(message, dict) else {}
        role = fields.get("from", fields.get("role"))
        text = fields.get("value", fields.get("content"))
        if not isinstance(role, str) or not isinstance(text, str):
            raise _fault(where, "a message needs from and value, both as text")
        known = _ROLES.get(role.lower())
        if known is None:
            raise _fault(where, f"{role[:20]!r} is no known sender: human, gpt or system")
        if known == "user" and text:
            if len(asked) == (turns if chat else 1):
                break
            message_json = _json({"role": "user", "content": text}) if chat else _json(text)
            asked.append(system + message_json if chat else message_json)
            lengths.append(0)
            system = b""
        elif known == "assistant" and asked and not lengths[-1]:
            lengths[-1] = min(MAX_TOKENS, max(1, round(len(text) / CHARACTERS)))
        elif known == "system" and not asked:
            system = _json({"role": "system", "content": text}) + b","
    return Entry(asked, lengths) if asked else None


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _fault(where: str, words: str, hint: str = _HINT) -> UsageError:
    return UsageError(f"{where}: {words}", hint)
