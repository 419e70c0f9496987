"""The JSON schema of ``llmtop.toml``, made from its tables."""

from __future__ import annotations

from typing import Any

import msgspec

from llmtop.config.key_table import COMMANDS
from llmtop.config.tables import ConfigTable
from llmtop.engines.registry import ADAPTERS


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12; ``docs/llmtop.schema.json`` is this, and a test keeps it so."""
    made = msgspec.json.schema(ConfigTable)
    made["$defs"]["EngineTable"]["properties"]["engine"]["enum"] = list(ADAPTERS)
    keys = made["$defs"]["ConfigTable"]["properties"]["keys"]
    keys["propertyNames"] = {"enum": [command.id for command in COMMANDS]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmtop.toml",
        **made,
    }
