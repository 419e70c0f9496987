"""The JSON schema of ``llmtop.toml``, generated from its tables."""

from __future__ import annotations

from typing import Any

import msgspec

from llmtop.config.key_table import COMMANDS
from llmtop.config.tables import ConfigTable
from llmtop.engines.registry import ADAPTERS


def schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12). ``docs/llmtop.schema.json`` is its published form."""
    generated = msgspec.json.schema(ConfigTable)
    generated["$defs"]["EngineTable"]["properties"]["engine"]["enum"] = list(ADAPTERS)
    keys = generated["$defs"]["ConfigTable"]["properties"]["keys"]
    keys["propertyNames"] = {"enum": [command.id for command in COMMANDS]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmtop.toml",
        **generated,
    }
