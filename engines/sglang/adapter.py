"""SGLang 0.5.12 and later: its command line and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter, Live
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.sglang.failures import FAILURES, WORDS
from llmtop.engines.sglang.loads import STEP_SUMS
from llmtop.engines.sglang.log_patterns import EFFECTIVE, MEMORY, PHASES
from llmtop.engines.sglang.metrics import SERIES, read
from llmtop.engines.sglang.options import OPTIONS, launch_options, long_flag, with_options
from llmtop.engines.tuning.argv_parser import has_flag
from llmtop.engines.tuning.nodes import refuse_other_nodes
from llmtop.engines.tuning.plugin_environment import INSIDE, plugin_environment
from llmtop.engines.tuning.tls_flags import certificate_of
from llmtop.trust import Trust

HERE = Path(__file__).resolve().parent
PLUGIN_FOLDERS = (HERE / "plugin", INSIDE)
PLUGIN_NAME = "llmtop"  # in entry_points.txt of the plugin
MODULE = "sglang.launch_server"  # takes the flags directly; the program ``sglang`` needs ``serve``

# Gauges and log lines are updated at each prefill and after this number of decode steps. SGLang's
# default of 40 takes more than a second at 256 streams on an H200 (ITL 31 ms).
LOG_INTERVAL = ("--decode-log-interval", "10")
# Every version since 0.5.12 has it. Without it, a log line for each scrape would flood the log.
QUIET = ("--uvicorn-access-log-exclude-prefixes", "/metrics", "/health", "/server_info")

# By default /health generates a token, which takes a second or more. /health_generate always does.
# /ready does not, but exists only since 0.5.20.
QUICK_HEALTH = "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``sglang serve --model-path MODEL --host --port``, the operator's arguments last.

    spec.program comes first: ("sglang",), a path to it, or (PYTHON, "-m", MODULE).
    """
    if has_flag(spec.args, "--host", "--port", "--model-path", "--model"):
        raise UsageError(
            "llmtop must know where the engine listens and what it serves",
            "put the model and --port before the --, as arguments of llmtop",
        )
    refuse_other_nodes(spec.args)
    if spec.model.startswith("-"):
        raise UsageError(f"{spec.model} is a flag, not a model", "put the engine's flags after --")
    program = spec.program or ADAPTER.program
    verb = () if program[-1] == MODULE else ("serve",)
    added: list[str] = []
    if not has_flag(spec.args, "--enable-metrics"):
        added.append("--enable-metrics")
    for flag in (LOG_INTERVAL, QUIET):
        if not has_flag(spec.args, flag[0]):
            added += flag
    served = ("--model-path", spec.model, "--host", spec.host, "--port", str(spec.port))
    return (*program, *verb, *served, *added, *spec.args)


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``base``: the plugin."""
    added = plugin_environment(PLUGIN_FOLDERS, live_socket, base)
    if QUICK_HEALTH not in base:
        added[QUICK_HEALTH] = "0"
    allowed = [name.strip() for name in base.get("SGLANG_PLUGINS", "").split(",") if name.strip()]
    if allowed and PLUGIN_NAME not in allowed:  # the allowed plugins; empty means all
        added["SGLANG_PLUGINS"] = ",".join([*allowed, PLUGIN_NAME])
    return added


def stock_live(url: str, api_key: str, trust: Trust) -> Live:
    """The live options of any SGLang engine, over HTTP with its API key."""
    from llmtop.engines.sglang.http_options import StockLive

    return StockLive(url, api_key, trust)


ADAPTER = Adapter(
    kind="sglang",
    title="SGLang",
    default_port=30000,
    program=("sglang",),
    module=MODULE,
    command=command,
    environment=environment,
    read=read,
    prefixes=("sglang:",),
    # Names in 0.5.4 to 0.5.9, and names that some collectors write.
    renamed={"sglang_": "sglang:"},
    without_metrics="start SGLang with --enable-metrics",
    options=OPTIONS,
    launch_options=launch_options,
    with_options=with_options,
    long_flag=long_flag,
    phases=PHASES,
    failures=FAILURES,
    failure_words=WORDS,
    effective=EFFECTIVE,
    memory=MEMORY,
    ready_path="/health",
    certificate=certificate_of,
    min_version="0.5.12",
    stock_live=stock_live,
    series=SERIES,
    step_sums=STEP_SUMS,
)
