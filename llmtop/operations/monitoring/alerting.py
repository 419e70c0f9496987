"""What the alerts of ``llmtop.toml`` need of this machine: variables, and a way to post."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop import UsageError
from llmtop.alerts.delivery import Post, check_webhook
from llmtop.alerts.expression import parse
from llmtop.alerts.rules import Rule
from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import SMALL, BrokenAnswer, NoConnection
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
        client = HttpClient(SMALL, timeout_s, trust_of=wiring.trusts.of)
        try:
            return await client.status("POST", url, body=body)
        except (NoConnection, ValueError) as error:
            raise OSError(0, "no connection") from error
        except BrokenAnswer as error:
            raise OSError(0, "the connection ended without an answer") from error
        finally:
            await client.close()

    return post
