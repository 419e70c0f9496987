"""Creates the alert rules of ``llmtop.toml`` with their variables, and the webhook client."""

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
    """The rules of the file. Raises UsageError when a rule needs a variable that is not set."""
    return [_rule(name, table, environ) for name, table in tables.items()]


def usable_rules(
    tables: Mapping[str, AlertTable], environ: Mapping[str, str]
) -> tuple[list[Rule], list[str]]:
    """The rules of the file, and error messages. For a screen, which must not fail.

    A rule whose webhook is invalid, or needs a variable that is not set, has no webhook.
    """
    rules, errors = [], []
    for name, table in tables.items():
        try:
            rules.append(_rule(name, table, environ))
        except UsageError as error:
            errors.append(error.message)
            rules.append(_rule(name, replace(table, webhook="", webhook_from=""), environ))
    return rules, errors


def _rule(name: str, table: AlertTable, environ: Mapping[str, str]) -> Rule:
    webhook = table.webhook
    if table.webhook_from:
        webhook = environ.get(table.webhook_from, "")
        if not webhook:
            raise UsageError(
                f"[alerts.{name}] needs the variable {table.webhook_from}, which is not set"
            )
        check_webhook(webhook)
    return Rule(name, parse(table.when), table.engines, table.command, webhook, table.bell)


def post_by(wiring: Wiring) -> Post:
    """Return a function that posts to webhooks. It trusts the same certificates as all of llmtop.

    The function returns the HTTP status. It raises OSError without an answer.
    """

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
