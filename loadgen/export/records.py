"""One request as a row of a file: JSON lines or CSV, with a published schema."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmtop.loadgen.core.results import RequestRecord


class RequestRow(msgspec.Struct, kw_only=True, frozen=True):
    """One request. Moments in seconds after the load was made; null: did not happen, not known."""

    time: Annotated[float, Meta(description="Unix time of the intended moment.")]
    turn: Annotated[int, Meta(ge=1, description="Of its conversation, counted from 1.")]
    fate: Annotated[str, Meta(description="ok, refused (by a full queue), failed or cut.")]
    error: Annotated[str, Meta(description='In a few words; "" when ok.')]
    intended_s: Annotated[float, Meta(description="When it was due, or decided on.")]
    sent_s: Annotated[float | None, Meta(description="Its last part was handed to the kernel.")]
    first_byte_s: Annotated[float | None, Meta(description="The first byte of the answer.")]
    first_content_s: Annotated[float | None, Meta(description="The first token of content.")]
    first_reasoning_s: Annotated[
        float | None, Meta(description="The first token of a model's thoughts.")
    ]
    last_token_s: Annotated[float | None, Meta(description="The last token of either.")]
    prompt_tokens: Annotated[int | None, Meta(description="By the server's usage.")]
    cached_tokens: Annotated[
        int | None, Meta(description="Of the prompt, found in the prefix cache; by usage.")
    ]
    output_tokens: Annotated[int, Meta(ge=0, description="By usage, unless counted.")]
    counted: Annotated[
        bool, Meta(description="No usage came: output_tokens is the number of chunks.")
    ]
    ttft_s: Annotated[float | None, Meta(description="First token, from the intended moment.")]
    service_ttft_s: Annotated[float | None, Meta(description="The same from sending.")]
    tpot_s: Annotated[
        float | None,
        Meta(description="(e2e - TTFT) / (tokens - 1); null: one token, or all at one moment."),
    ]
    e2e_s: Annotated[float | None, Meta(description="Last token, from the intended moment.")]
    service_e2e_s: Annotated[float | None, Meta(description="The same from sending.")]
    itls_s: Annotated[
        list[float] | None,
        Meta(
            description="Seconds from each piece of the answer to the next, the first 4,096 of"
            " them; in CSV with spaces between."
        ),
    ]
    chunks: Annotated[
        int, Meta(ge=0, description="Pieces of text that the answer came in, of a token or more.")
    ]
    request_id: Annotated[
        str,
        Meta(
            description="What the engine was asked to call it: the header X-Request-Id, and rid in"
            " the body for SGLang. vLLM puts cmpl- or chatcmpl- before it."
        ),
    ]
    remarks: Annotated[
        list[str], Meta(description="What was odd about the answer; in CSV with | between.")
    ]


COLUMNS = RequestRow.__struct_fields__


def row(record: RequestRecord, began: float) -> RequestRow:
    """A record's row. began: unix time of the moment from which its moments count."""
    return RequestRow(
        time=round(began + record.intended, 6),
        turn=record.turn,
        fate=record.fate.value,
        error=record.error,
        intended_s=record.intended,
        sent_s=record.sent,
        first_byte_s=record.first_byte,
        first_content_s=record.first,
        first_reasoning_s=record.first_reasoning,
        last_token_s=record.last,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        output_tokens=record.tokens,
        counted=record.counted,
        ttft_s=record.ttft,
        service_ttft_s=record.service_ttft,
        tpot_s=record.tpot,
        e2e_s=record.e2e,
        service_e2e_s=record.service_e2e,
        itls_s=None if record.gaps_us is None else [gap / 1e6 for gap in record.gaps_us],
        chunks=record.chunks,
        request_id=record.request_id,
        remarks=[remark.value for remark in record.remarks],
    )


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of one line; ``docs/schema/requests.schema.json`` is this."""
    made = msgspec.json.schema(RequestRow)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A request, as a line of the file that llmtop load --save writes",
        **made,
    }
