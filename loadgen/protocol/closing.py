"""The end of a stream: its usage, its finish reason, its [DONE]."""

from __future__ import annotations

from llmtop.loadgen.core.results import Remark
from llmtop.loadgen.protocol.chunk import Usage
from llmtop.loadgen.protocol.token_count import TokenCount, settle

# vLLM and SGLang end an aborted stream normally; only the finish reason differs.
_ABORTED = ("abort", "error")


class Closing:
    """The end of one answer.

    done: [DONE] was received. finish: the finish reason; None: none. tokens: set by ``settle``.
    remarks: anomalies of its chunks, each once.
    """

    __slots__ = ("_counted", "_usage", "done", "finish", "remarks", "tokens")

    def __init__(self) -> None:
        self.done = False
        self.finish: str | None = None
        self.remarks: dict[Remark, None] = {}
        self.tokens: TokenCount | None = None
        self._usage: Usage | None = None
        self._counted = False  # a count of tokens was received, possibly an impossible one

    def count(self, usage: Usage) -> None:
        """Take the usage of a chunk. The last one with a count of output tokens is used."""
        if usage.completion_tokens is not None:
            self._counted = True
            self._usage = usage
        elif self._usage is None:
            self._usage = usage

    def remark(self, remarks: tuple[Remark, ...]) -> None:
        """Record the anomalies of a chunk."""
        self.remarks |= dict.fromkeys(remarks)
        self._counted = self._counted or Remark.USAGE_IMPOSSIBLE in remarks

    def settle(self, request: bytes, chunks: int, whole: bool = False) -> TokenCount:
        """The tokens by the server's usage if it is plausible, else by the chunks received.

        request: the body of the request. whole: the answer is complete.
        """
        if self.tokens is None or not whole:
            self.tokens = settle(self._usage, request, chunks, whole)
        return self.tokens

    def shortfall(self, request: bytes, chunks: int, usage_seen: bool) -> str:
        """Why a complete answer counts as failed; "" if it does not.

        usage_seen: this server has sent usage before.
        """
        if not self.done:
            return "the stream ended before its [DONE]"
        if self.finish in _ABORTED:
            return f"the server aborted the answer (finish_reason {self.finish})"
        if not self._counted and (self.finish is None or usage_seen):
            # vLLM ends the streams of a dead engine in this way: HTTP 200, [DONE], no usage.
            missing = ", and without finish_reason" if self.finish is None else ""
            return f"[DONE] without the requested usage{missing}"
        if self.settle(request, chunks, whole=True).output == 0:
            return "no token was received"
        return ""
