"""The parts of a request's body around its prompt."""

from __future__ import annotations

import json

from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.structured_output import response_format

_LIMIT = b'"max_tokens":'
_EXACT = b'"ignore_eos": true'
_IDS = b'"prompt":['


def limit(body: bytes) -> int | None:
    """The most tokens that a body of ours asks for; None for one that is not an envelope's."""
    begin = body.find(_LIMIT) + len(_LIMIT)
    number = body[begin : begin + 12].partition(b",")[0]
    return int(number) if begin >= len(_LIMIT) and number.isdigit() else None


def is_exact(body: bytes) -> bool:
    """Whether a body of ours asks for answers that do not end before their limit."""
    return _EXACT in body[: max(0, body.find(_LIMIT))]


def prompt_size(body: bytes) -> int | None:
    """How many token ids a body of ours asks with; None where it asks with text."""
    begin = body.find(_IDS) + len(_IDS)
    if begin < len(_IDS) or body[begin : begin + 1] in (b"]", b""):
        return None
    return body.count(b",", begin) + 1


class RequestBody:
    """Puts a prompt and a length of the answer into a body."""

    def __init__(self, prompts: Prompts, target: Target) -> None:
        fields: dict[str, object] = {
            "model": target.model,
            "temperature": prompts.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompts.json_schema:
            # An answer that is complete must be able to end: what could follow is no JSON.
            fields["response_format"] = response_format(prompts.json_schema)
        elif prompts.ignore_eos:
            # Not min_tokens as well: it changes the logits on every step and does not go
            # together with speculation in vLLM.
            fields["ignore_eos"] = True
        self._head = json.dumps(fields)[:-1].encode()
        self._asked = b'"messages":[%b]' if target.chat else b'"prompt":%b'

    def wrap(self, asked: bytes, output_tokens: int) -> bytes:
        """The body. asked: a chat's messages with commas between them, or a prompt; as JSON."""
        return b'%b,"max_tokens":%d,%b}' % (self._head, output_tokens, self._asked % asked)
