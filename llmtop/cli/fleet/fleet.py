"""``llmtop fleet``: all engines that a Prometheus scrapes, as a table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import document, json_flag, note, table
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags
from llmtop.fleet.groups import BY

if TYPE_CHECKING:
    from llmtop.fleet.observer import Observer
    from llmtop.fleet.power import Prices
    from llmtop.fleet.promql import Prometheus

INTERVAL_S = 5.0
VARIABLE = "LLMTOP_PROMETHEUS_URL"


@click.command()
@click.option(
    "--prometheus",
    "url",
    metavar="URL",
    envvar=VARIABLE,
    show_envvar=True,
    help="Address of a Prometheus, or of a server with its API, such as Thanos.",
)
@click.option(
    "--match", default="", metavar="LABELS", help="Label matchers, such as 'job=\"vllm\"'."
)
@click.option(
    "--group",
    "by",
    type=click.Choice(BY),
    multiple=True,
    default=("model", "engine"),
    show_default=True,
    help="Group instances by this label. May be repeated.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="GPUs of each instance that no GPU exporter reports, for cost.",
)
@click.option("--once", is_flag=True, help="Print the table once and exit.")
@cacert_flag
@json_flag
@screen_flags
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    match: str,
    by: tuple[str, ...],
    gpus: int | None,
    once: bool,
    as_json: bool,
    screen: ScreenFlags,
) -> None:
    """Show all engines that a Prometheus scrapes: vLLM, SGLang, TensorRT-LLM.

    Enter opens an instance in the dashboard, with numbers from the Prometheus.

    Credentials come from the environment or from a file that only you may read:
    LLMTOP_PROMETHEUS_TOKEN_FILE, or LLMTOP_PROMETHEUS_USER with LLMTOP_PROMETHEUS_PASSWORD_FILE,
    or LLMTOP_PROMETHEUS_CERT with LLMTOP_PROMETHEUS_KEY.
    """
    from llmtop.fleet.power import Prices
    from llmtop.fleet.promql import base_url
    from llmtop.fleet.queries import matcher

    if not url:
        raise UsageError("no Prometheus was given", f"give --prometheus URL, or set {VARIABLE}")
    url = base_url(url)
    wanted = matcher(match)
    if as_json and not once:
        raise UsageError("--json needs --once")
    prices = Prices(screen.gpu_hour, gpus)
    if once:
        _print_once(url, wanted, by, prices, as_json=as_json)
        return
    explicit = ctx.get_parameter_source("interval") is ParameterSource.COMMANDLINE
    from llmtop.cli.fleet.fleet_screen import show

    show(url, wanted, by, screen, prices, screen.interval if explicit else INTERVAL_S)


def open_server(url: str) -> Prometheus:
    """A client of the Prometheus at a URL, with credentials from the environment.

    Raises LlmtopError for invalid credentials.
    """
    from llmtop.fleet.credentials import from_environment
    from llmtop.fleet.promql import Prometheus
    from llmtop.operations.wiring import Wiring

    wiring = Wiring()
    return Prometheus(url, from_environment(wiring.environ), trust=wiring.trusts.of(url))


def observe(server: Prometheus, match: str, prices: Prices) -> Observer:
    """Create the observer that queries the server for the table."""
    from llmtop.engines.registry import ADAPTERS
    from llmtop.fleet.observer import Observer

    return Observer(server, list(ADAPTERS.values()), match, prices=prices)


def nothing_found(match: str) -> str:
    """The message for an empty table. match: the label matchers, "" for none."""
    if match:
        return f"no vLLM, SGLang or TensorRT-LLM of this Prometheus matches {match}"
    return "this Prometheus scrapes no vLLM, SGLang or TensorRT-LLM; see its page /targets"


def _print_once(
    url: str, match: str, by: tuple[str, ...], prices: Prices, *, as_json: bool
) -> None:
    from llmtop.cli.fleet.table import entry
    from llmtop.fleet.words import HEADS, cells, group_words

    async def query() -> None:
        server = open_server(url)
        try:
            found = await observe(server, match, prices).read_table()
        finally:
            await server.close()
        if found.trouble:
            raise LlmtopError(found.trouble, found.hint)
        if as_json:
            document(entry(found, found.instances, by))
            return
        if not found.instances:
            note(nothing_found(match))
            return
        from llmtop.fleet.groups import grouped

        for group, members in grouped(found.instances, by).items():
            click.echo(group_words(group))
            table(HEADS, [cells(one) for one in members])
            for words in group.imbalance:
                click.echo(f"  {words}")
            click.echo()

    asyncio.run(query())
