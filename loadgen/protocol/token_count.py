"""The number of tokens of a request: the server's count where plausible, else the chunks."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.core.results import Remark
from llmtop.loadgen.protocol.chunk import Usage
from llmtop.loadgen.workload.request_body import is_exact, limit, prompt_size


class TokenCount(msgspec.Struct, frozen=True):
    """output: tokens of the answer. counted: those are its chunks, since no usage can be believed.

    prompt, cached: None: not reported. remarks: where the server's count is not what was asked.
    """

    output: int
    counted: bool
    prompt: int | None = None
    cached: int | None = None
    remarks: tuple[Remark, ...] = ()


def settle(usage: Usage | None, request: bytes, chunks: int, whole: bool) -> TokenCount:
    """What is believed of the last usage, beside the pieces of text that came.

    An answer has at most as many tokens as were asked for (max_tokens), or as many as were seen.
    A count above both is not believed, nor is 0 where text came: the chunks are counted then, of
    which each has a token at least. whole: the answer ended well, so its length can be compared.
    """
    if usage is None:
        return TokenCount(chunks, counted=True)
    prompt = usage.prompt_tokens
    if usage.completion_tokens is None:
        return TokenCount(chunks, counted=True, prompt=prompt)
    reported, asked = usage.completion_tokens, limit(request)
    remarks = []
    if asked is not None and reported > asked:
        remarks.append(Remark.OUTPUT_ABOVE)
    elif asked is not None and whole and reported < asked and is_exact(request):
        remarks.append(Remark.OUTPUT_BELOW)
    if prompt is not None and prompt_size(request) not in (None, prompt):
        remarks.append(Remark.PROMPT_DIFFERS)
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    if cached is not None and prompt is not None and cached > prompt:
        cached = None
    unbelievable = (asked is not None and reported > max(asked, chunks)) or (
        reported == 0 and chunks > 0
    )
    if unbelievable and chunks:
        remarks.append(Remark.NOT_BELIEVED)
    return TokenCount(
        output=chunks if unbelievable else reported,
        counted=unbelievable,
        prompt=prompt,
        cached=cached,
        remarks=tuple(remarks),
    )
