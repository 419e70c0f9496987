"""vLLM 0.20 and later: its command line, its environment, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.tuning.argv_parser import has_flag
from llmtop.engines.tuning.nodes import refuse_other_nodes
from llmtop.engines.tuning.plugin_environment import INSIDE, plugin_environment
from llmtop.engines.tuning.tls_flags import certificate_of
from llmtop.engines.vllm.failures import FAILURES, WORDS
from llmtop.engines.vllm.log_patterns import EFFECTIVE, MEMORY, PHASES
from llmtop.engines.vllm.metrics import SERIES, read
from llmtop.engines.vllm.options import OPTIONS, launch_options, long_flag, with_options
from llmtop.engines.vllm.ranks import live_ranks

HERE = Path(__file__).resolve().parent
PLUGIN_FOLDERS = (HERE / "plugin", INSIDE)
PLUGIN_NAME = "llmtop"  # in entry_points.txt of the plugin

# Every version since 0.20 has it. Without it, a log line for each scrape would flood the log.
QUIET = ("--disable-access-log-for-endpoints", "/metrics,/health,/version,/v1/models")
ACCESS_LOG_FLAGS = (
    "--disable-access-log-for-endpoints",
    "--disable-uvicorn-access-log",
    "--no-disable-uvicorn-access-log",
    "--uvicorn-log-level",
)


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``vllm serve MODEL --host --port``, the operator's arguments last.

    spec.program is everything before ``serve``: ("vllm",), a path to it, or (PYTHON, "-m", MODULE).
    """
    if has_flag(spec.args, "--host", "--port", "--uds"):
        raise UsageError(
            "llmtop must know where the engine listens",
            "put --port before the --, as an option of llmtop",
        )
    refuse_other_nodes(spec.args)
    if spec.model.startswith("-"):
        raise UsageError(f"{spec.model} is a flag, not a model", "put the engine's flags after --")
    quiet = () if has_flag(spec.args, *ACCESS_LOG_FLAGS) else QUIET
    program = spec.program or ADAPTER.program
    address = ("--host", spec.host, "--port", str(spec.port))
    return (*program, "serve", spec.model, *address, *quiet, *spec.args)


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``base``: the plugin."""
    added = plugin_environment(PLUGIN_FOLDERS, live_socket, base)
    if "VLLM_PLUGINS" in base:  # the allowed plugins; without it all are allowed
        allowed = [name for name in base["VLLM_PLUGINS"].split(",") if name]
        if PLUGIN_NAME not in allowed:
            added["VLLM_PLUGINS"] = ",".join([*allowed, PLUGIN_NAME])
    return added


ADAPTER = Adapter(
    kind="vllm",
    title="vLLM",
    default_port=8000,
    program=("vllm",),
    module="vllm.entrypoints.cli.main",
    api_key_variable="VLLM_API_KEY",  # api_server.py: used without --api-key
    command=command,
    environment=environment,
    read=read,
    prefixes=("vllm:", "process_start_time_seconds"),
    # Some collectors replace the colon; the rest of the name is unchanged.
    renamed={"vllm_": "vllm:"},
    without_metrics="start vLLM without --disable-log-stats",
    options=OPTIONS,
    launch_options=launch_options,
    with_options=with_options,
    live_ranks=live_ranks,
    long_flag=long_flag,
    phases=PHASES,
    failures=FAILURES,
    failure_words=WORDS,
    effective=EFFECTIVE,
    memory=MEMORY,
    certificate=certificate_of,
    min_version="0.20",
    series=SERIES,
)
