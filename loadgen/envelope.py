"""All of a request's body but what is asked."""

from __future__ import annotations

import json

from llmtop.loadgen.answer_format import response_format
from llmtop.loadgen.plan import Prompts, Target

_LIMIT = b'"max_tokens":'


def limit(body: bytes) -> int | None:
    """The most tokens that a body of ours asks for; None for one that is not an envelope's."""
    begin = body.find(_LIMIT) + len(_LIMIT)
    number = body[begin : begin + 12].partition(b",")[0]
    return int(number) if begin >= len(_LIMIT) and number.isdigit() else None


class Envelope:
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
