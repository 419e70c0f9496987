"""What the alerts of ``llmtop.toml`` need of this machine: variables, and a way to post."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmtop import UsageError
from llmtop.alerts.delivery import Post, check_webhook
from llmtop.alerts.expression import parse
from llmtop.alerts.rules import Rule
from llmtop.values import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmtop.config.tables import AlertTable
    from llmtop.operations.wiring import Wiring


def rules_of(tables: Mapping[str, AlertTable], environ: Mapping[str, str]) -> list[Rule]:
    """The rules of the file. UsageError where a variable that one needs is not set."""
    return [_rule(name, table, environ) for name, table in tables.items()]


def usable_rules(
    tables: Mapping[str, AlertTable], environ: Mapping[str, str]
) -> tuple[list[Rule], list[str]]:
    """The same for a screen: a rule whose variable is not set works without its webhook, and a
    sentence reports that."""
    rules, troubles = [], []
    for name, table in tables.items():
        try:
            rules.append(_rule(name, table, environ))
        except UsageError as error:
            troubles.append(error.message)
            rules.append(_rule(name, replace(table, webhook="", webhook_from=""), environ))
    return rules, troubles


def _rule(name: str, table: AlertTable, environ: Mapping[str, str]) -> Rule:
    webhook = table.webhook
    if table.webhook_from:
        webhook = environ.get(table.webhook_from, "")
        if not webhook:
            raise UsageError(
                f"[alerts.{name}] needs the variable {table.webhook_from}, and it is not set"
            )
        check_webhook(webhook)
    return Rule(name, parse(table.when), table.engines, table.command, webhook, table.bell)


def post_by(wiring: Wiring) -> Post:
    """Posts to webhooks, with the trust that all encrypted connections of llmtop have."""

    async def post(url: str, body: bytes, timeout_s: float) -> int:
        import httpx

        trust = wiring.trusts.of(url)
        verify = trust.context() if url.startswith("https:") else False
        try:
            async with asyncio.timeout(timeout_s):
                async with httpx.AsyncClient(verify=verify, follow_redirects=False) as client:
                    request = client.stream(
                        "POST", url, content=body, headers={"Content-Type": "application/json"}
                    )
                    async with request as answer:
                        return answer.status_code
        except httpx.HTTPError as error:
            raise OSError(type(error).__name__) from error

    return post
