"""Words for causes and advice: a pattern's groups, an engine's flags, an error's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from llmtop.engines.failures.errors import Link
from llmtop.engines.host.safe_text import brief

LONGEST = 300  # characters of a cause, or an advice
_SHORT = 24  # characters: a message that says little by itself

# Words for advice that holds for every engine. An adapter replaces them with its flags.
# log: the command that shows the whole log.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "engine": "engine",
        "log": "llmtop logs NAME",
        "memory": "its share of the GPU's memory",
        "batch": "its batch size",
        "context": "its context length",
        "parallel": "the number of GPUs that the model is split over",
        "remote_code": "the flag that allows remote code",
        "dtype_half": "float16 instead of bfloat16",
        "dtype_flag": "the flag of its dtype",
        "eager": "the flag that disables CUDA graphs",
        "internal_port": "MASTER_PORT",
        "host_memory": "a smaller model or share",
        "cache": "HF_HOME",
        "no_nvcc": "",
        "no_ray": "an executor other than Ray",
        "no_custom_reduce": "the flag that disables the custom all-reduce",
        "spawn": "the start method spawn",
        "watchdog": "a longer watchdog timeout",
    }
)

_NAMED = re.compile(r"\{(\w{1,40})\}")
_TYPE = re.compile(r"(?P<type>[A-Za-z_][\w.]{0,160})(?::\s?(?P<what>.*))?$")
_TYPED = re.compile(r"[A-Za-z_][\w.]{0,160}(?:Error|Exception): ")
_NOISE = re.compile(
    r" ?\[type=\w{1,60}(?:, input_.*|\])$|^\[TensorRT-LLM\]\[ERROR\] |^(?:Value|Assertion) error, "
)


def worded(
    text: str, words: Mapping[str, str], groups: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The text with each ``{name}`` replaced: by a group of the pattern, the engine's word, or
    ``WORDS``.

    Groups come from a log, so they are cleaned, and names inside them are not replaced. Other
    braces stay.
    """

    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name in groups:
            return brief(_NOISE.sub("", " ".join(groups[name].split())), LONGEST)
        return words.get(name, WORDS.get(name, found[0]))

    return _NAMED.sub(put, text)[:LONGEST]


def without_type(line: str) -> str:
    """The message of an error's line, without the class name and pydantic's additions."""
    found = _TYPED.match(line)
    return _NOISE.sub("", line[found.end() :] if found is not None else line)


def in_own_words(link: Link) -> tuple[str, str]:
    """Cause and advice of an error without a matching pattern: its own text."""
    first, *more = (_NOISE.sub("", line) for line in link.lines)
    found = _TYPE.match(first)
    if found is None or not (found["what"] is not None or first[:1].isupper() or "." in first):
        cause = f"it failed: {first.strip()}"
    else:
        kind, what = found["type"].rpartition(".")[2], (found["what"] or "").strip()
        cause = f"it failed with {kind}"
        if what:
            cause += f": {what}"
        elif link.place and not more:
            cause += f" at: {link.place}"
        if len(what) < _SHORT and more:
            cause += f"{':' if not what else ';'} {more[0].strip()}"
    return brief(cause, LONGEST), "read the engine's log: {log}"
