"""``llmtop tune NAME --slo …``: find the best live settings for an SLO, by measuring."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED, stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag
from llmtop.cli.common.param_types import Real, Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import require_answering
from llmtop.cli.forecast.slo_option import limits_of, slo_option
from llmtop.cli.load.load_target import (
    report_option,
    request_flags,
    request_options,
)
from llmtop.cli.screen.background_recording import add_outcome, record_load_flag, recorded

if TYPE_CHECKING:
    from llmtop.operations.slo.tuner import TuneReport

DEFAULT_OPTIONS = "batch,queue,budget,drafts,prefill"
ROLES = {  # word of --options: role
    "batch": "batch_limit",
    "queue": "queue_limit",
    "budget": "token_budget",
    "drafts": "draft_tokens",
    "prefill": "prefill_threshold",
}


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@cacert_flag
@slo_option(required=True)
@click.option("-r", "--rate", type=Real(min=0.01, max=100_000), help="Requests per second.")
@click.option(
    "-c",
    "--streams",
    "--concurrency",
    "streams",
    type=click.IntRange(1, 20000),
    help="Streams of a closed loop.",
)
@click.option(
    "--load",
    "--shape",
    "shape",
    metavar="SHAPE",
    help='Load of each run, such as "hold 60 for 8s".',
)
@click.option("--open", "is_open", is_flag=True, help="Levels of --load are requests per second.")
@click.option("--watch", is_flag=True, help="Send no load; measure under the real traffic.")
@click.option(
    "--options",
    "roles",
    default=DEFAULT_OPTIONS,
    show_default=True,
    help="What may change: batch limit, queue limit, token budget, draft length, and the prompt"
    " tokens of one request in a step.",
)
@click.option(
    "--run-seconds",
    default=8.0,
    show_default=True,
    type=Span(2.0, 600),
    help="Length of each run.",
)
@click.option(
    "--max-time",
    type=Span(10.0),
    show_default="no limit",
    help="Time limit; the verdict then uses the measurements so far.",
)
@report_option
@request_flags
@record_load_flag
@json_flag
def command(
    name: str,
    slo: str,
    rate: float | None,
    streams: int | None,
    shape: str | None,
    is_open: bool,
    watch: bool,
    roles: str,
    run_seconds: float,
    max_time: float | None,
    report_file: str | None,
    as_json: bool,
    **shared: Any,
) -> int:
    """Find the settings of NAME that serve the most requests within limits.

    The load comes from one of --rate, --streams and --load. With --watch it is the real traffic.

    A forecast chooses a few candidates. Two kinds of settings that it cannot predict are added:
    another draft length, and another limit for the prompt tokens of one request in a step. They are
    measured in rounds. In each round your own settings and the remaining candidates receive the
    same arrivals, with new prompts. Rounds follow until the difference is certain. The answer is
    "better" with the settings, "nothing to gain" or "cannot tell". At the end your own settings are
    in force again.

        llmtop tune vllm --slo ttft=1s,tpot=50ms --rate 80 --prompt-tokens 512
    """
    from llmtop.cli.forecast.slo_documents import engine_of, setup_of, tune_document
    from llmtop.cli.forecast.tune_meters import LoadOf
    from llmtop.cli.forecast.tune_run import tune_under_load, tune_watching
    from llmtop.cli.load.saving import check, first_failure, write_run
    from llmtop.operations.slo.tune_runs import TimeLimit
    from llmtop.operations.wiring import Wiring

    config = read(shared["config_file"])
    limits = limits_of(slo, config)
    assert limits is not None
    loads = [one for one in (rate, streams, shape) if one is not None]
    if watch and loads:
        raise UsageError("--watch sends no load", "omit --rate, --streams and --load")
    if not watch and len(loads) != 1:
        raise UsageError(
            "tune needs exactly one load",
            "give one of --rate, --streams and --load, or --watch for the real traffic",
        )
    asked = request_options(shared, config, name)
    check((), report_file=report_file)
    stop_as_ctrl_c_does()  # a signal must put the options back too
    chosen = chosen_roles(roles)
    load = LoadOf(rate, streams, shape, is_open, run_seconds)
    TimeLimit(max_time).check(run_seconds if watch else load.duration_s)
    wiring = Wiring()
    endpoint = engine_of(wiring, name)
    if not wiring.is_url(name):
        require_answering(wiring, endpoint)
    if watch:
        recorded(wiring, name, None)
        report, line = tune_watching(
            wiring, name, limits, chosen, run_seconds, most_s=max_time, quiet=as_json
        )
    else:
        report, line = tune_under_load(
            wiring, name, limits, chosen, load, asked, most_s=max_time, quiet=as_json
        )
    found = tune_document(name, slo, report, line, endpoint)
    if watch:
        found["setup"] = setup_of(wiring, endpoint)
    else:
        found.update(load.entry)
        found["setup"] = setup_of(wiring, endpoint, asked.prompts, load.entry)
    add_outcome("tune", name, found)
    unwritten = first_failure([partial(write_run, report_file, found)] if report_file else [])
    if as_json:
        document(found)
    else:
        for words in lines(name, slo, report, line):
            click.echo(words)
    if not report.stopped and not report.restored:
        raise LlmtopError(f"the settings of {name} were not restored", "see `llmtop options`")
    if unwritten is not None:
        raise unwritten
    if report.stopped:
        return INTERRUPTED
    return 0


def chosen_roles(text: str) -> tuple[str, ...]:
    """Parse ``--options`` into roles. Raises UsageError for an unknown word."""
    found = []
    for word in text.split(","):
        role = ROLES.get(word.strip().lower())
        if role is None:
            raise UsageError(
                f"--options: {word.strip()[:40]!r} is unknown", f"choose from {DEFAULT_OPTIONS}"
            )
        found.append(role)
    return tuple(dict.fromkeys(found))


def lines(name: str, slo: str, report: TuneReport, line: str) -> list[str]:
    """The result of a tune as lines of text. line: the launch command, "" for none."""
    from llmtop.operations.slo.words import tune_sentence
    from llmtop.slo_control.search import Verdict
    from llmtop.wording.format import duration

    found = [tune_sentence(name, slo, report)]
    if report.result is not None and report.result.verdict is Verdict.BETTER:
        pairs = " ".join(f"{option}={value}" for option, value in report.settings.items())
        found.append(f"  set it now:     llmtop set {name} {pairs}")
        if line:
            found.append(f"  at each launch: {line}")
    found.append(
        f"  {report.runs} run{'' if report.runs == 1 else 's'} in {duration(report.seconds)}; "
        + ("your own settings are in force again" if report.restored else "NOT restored")
    )
    return found
