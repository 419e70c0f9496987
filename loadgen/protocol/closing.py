"""What ends a stream: its usage, its finish reason, its [DONE]."""

from __future__ import annotations

from llmtop.loadgen.core.results import Remark
from llmtop.loadgen.protocol.chunk import Usage
from llmtop.loadgen.protocol.token_count import TokenCount, settle

# vLLM and SGLang end a stream that they gave up on as if all were well, but for this word.
_GIVEN_UP = ("abort", "error")


class Closing:
    """Of one answer. done: [DONE] came. finish: its finish reason; None: none. tokens: once it is
    judged. remarks: what was odd about its chunks, each once."""

    __slots__ = ("_counted", "_usage", "done", "finish", "remarks", "tokens")

    def __init__(self) -> None:
        self.done = False
        self.finish: str | None = None
        self.remarks: dict[Remark, None] = {}
        self.tokens: TokenCount | None = None
        self._usage: Usage | None = None
        self._counted = False  # how many tokens there were, be it an impossible number

    def count(self, usage: Usage) -> None:
        """A chunk reports the tokens so far; the last one that does is believed."""
        if usage.completion_tokens is not None:
            self._counted = True
            self._usage = usage
        elif self._usage is None:
            self._usage = usage

    def remark(self, remarks: tuple[Remark, ...]) -> None:
        """A chunk was odd."""
        self.remarks |= dict.fromkeys(remarks)
        self._counted = self._counted or Remark.USAGE_IMPOSSIBLE in remarks

    def settle(self, request: bytes, chunks: int, whole: bool = False) -> TokenCount:
        """Tokens by the server's usage where it can be believed, else the chunks that came."""
        if self.tokens is None or not whole:
            self.tokens = settle(self._usage, request, chunks, whole)
        return self.tokens

    def shortfall(self, request: bytes, chunks: int, usage_seen: bool) -> str:
        """Why a complete answer is not a good one; "" when it is. usage_seen: this server has
        sent usage before."""
        if not self.done:
            return "the stream ended before its [DONE]"
        if self.finish in _GIVEN_UP:
            return f"the server aborted the answer (finish_reason {self.finish})"
        if not self._counted and (self.finish is None or usage_seen):
            # vLLM ends the streams of an engine that died like this: HTTP 200, [DONE], no usage.
            missing = ", and without finish_reason" if self.finish is None else ""
            return f"[DONE] without the requested usage{missing}"
        if self.settle(request, chunks, whole=True).output == 0:
            return "no token was received"
        return ""
