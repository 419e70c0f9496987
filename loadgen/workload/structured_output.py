"""Structured generation: the JSON schema that answers must follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmtop import UsageError

BUILTIN = "builtin"
MAX_SCHEMA = 64 * 1024  # bytes

_SKY = {"enum": ["sun", "cloud", "rain", "snow", "fog"]}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _record(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


# Only words to choose from: a model that was asked nonsense would never end a free text or number,
# and every grammar backend knows enums.
_FORECAST = _record(
    {
        "city": {"enum": ["Bergen", "Cairo", "Lima", "Osaka", "Perth"]},
        "week": _record(dict.fromkeys(_DAYS, _SKY)),
        "umbrella": {"type": "boolean"},
    }
)


def load(name: str) -> str:
    """The schema of a file, or the built-in one; as JSON text. Raises UsageError."""
    if name == BUILTIN:
        return json.dumps(_FORECAST)
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_SCHEMA + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"the JSON schema {name} cannot be read: {why.lower()}", f"a file, or {BUILTIN}"
        ) from None
    try:
        return check(data.decode())
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8, which JSON is written in") from None
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", error.hint) from None


def check(text: str) -> str:
    """The text itself when it is a JSON object of a fair size. Raises UsageError."""
    if len(text.encode(errors="replace")) > MAX_SCHEMA:
        raise UsageError(f"a JSON schema has at most {MAX_SCHEMA:,} bytes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"this is not JSON{line}, so it is no JSON schema") from None
    if not isinstance(found, dict):
        raise UsageError("a JSON schema is a JSON object", 'such as {"type": "object"}')
    return text


def response_format(schema: str) -> dict[str, Any]:
    """The request's field, in chats and in completions alike.

    OpenAI's form; vLLM and SGLang take it in both kinds of requests (their classes
    CompletionRequest and ChatCompletionRequest have the field; SGLang's JsonSchemaResponseFormat
    wants a name, and takes ``strict`` and ``schema`` as they are here).
    """
    named = {"name": "answer", "strict": True, "schema": json.loads(schema)}
    return {"type": "json_schema", "json_schema": named}
