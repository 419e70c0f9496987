"""The number of tokens of a request: the server's count if plausible, else the chunks."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.core.results import Remark
from llmtop.loadgen.protocol.chunk import Usage
from llmtop.loadgen.workload.request_body import is_exact, limit, prompt_size


class TokenCount(msgspec.Struct, frozen=True):
    """The tokens of a request.

    output: tokens of the answer. counted: ``output`` is the number of chunks, because the server
    sent no plausible usage. prompt, cached: prompt tokens, and those found in the prefix cache;
    None: not reported. remarks: differences between the server's count and the request.
    """

    output: int
    counted: bool
    prompt: int | None = None
    cached: int | None = None
    remarks: tuple[Remark, ...] = ()


def settle(usage: Usage | None, request: bytes, chunks: int, whole: bool) -> TokenCount:
    """Choose between the server's usage and the number of chunks.

    A usage is not plausible if it exceeds both max_tokens and the number of chunks, or if it is 0
    although text was received. Then the chunks are counted: each holds at least one token. whole:
    the answer is complete, so its length can be compared with the request.
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
    implausible = (asked is not None and reported > max(asked, chunks)) or (
        reported == 0 and chunks > 0
    )
    if implausible and chunks:
        remarks.append(Remark.NOT_BELIEVED)
    return TokenCount(
        output=chunks if implausible else reported,
        counted=implausible,
        prompt=prompt,
        cached=cached,
        remarks=tuple(remarks),
    )
