"""TensorRT-LLM 1.0 and later: the command line, the environment and the configuration file.

Written from its source and documentation. llmtop was never tested with TensorRT-LLM on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.tensorrt_llm import config_file as config
from llmtop.engines.tensorrt_llm import metrics as prometheus
from llmtop.engines.tensorrt_llm.failures import FAILURES, WORDS
from llmtop.engines.tensorrt_llm.log_patterns import MEMORY, PHASES
from llmtop.engines.tensorrt_llm.options import OPTIONS, launch_options, with_options
from llmtop.engines.tensorrt_llm.reader import TensorRtReader
from llmtop.engines.tuning.argv_parser import has_flag


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``trtllm-serve MODEL --host --port``, the operator's flags, and llmtop's configuration file.

    The file is omitted if the operator names one. There is no subcommand: the oldest versions have
    none, and in later ones ``serve`` is the default.
    """
    if has_flag(spec.args, "--host", "--port"):
        raise UsageError(
            "llmtop must know where the engine listens",
            "put --port before the --, as an option of llmtop",
        )
    if spec.model.startswith("-"):
        raise UsageError(f"{spec.model} is a flag, not a model", "put the engine's flags after --")
    split = config.split_arguments(spec.args)
    address = ("--host", spec.host, "--port", str(spec.port))
    # The older of this flag's two names; newer versions accept both.
    file = ("--extra_llm_api_options", str(Path(spec.folder) / config.FILE))
    own_file = file if split.settings is not None else ()
    return (*(spec.program or ADAPTER.program), spec.model, *address, *split.flags, *own_file)


def files(spec: LaunchSpec) -> dict[str, str]:
    """llmtop's configuration file by name; {} if the operator names one."""
    settings = config.split_arguments(spec.args).settings
    return {config.FILE: config.text(settings)} if settings is not None else {}


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``base``. There is no plugin, because there are no live options."""
    return {"PYTHONUNBUFFERED": "1"}  # the log is a file, and its last lines show why it died


ADAPTER = Adapter(
    kind="tensorrt-llm",
    title="TensorRT-LLM",
    default_port=8000,
    program=("trtllm-serve",),
    module="tensorrt_llm.commands.serve",
    command=command,
    environment=environment,
    files=files,
    # It binds the port at once but listens only after the model is loaded.
    ready_path="/health",
    # Any program may read this page. A read of /metrics removes its data, so only one may.
    metrics_path=prometheus.PATH,
    read=prometheus.read,
    make_reader=TensorRtReader,
    kept_requests=config.kept_requests,
    prefixes=prometheus.PREFIXES,
    without_metrics="start TensorRT-LLM with return_perf_metrics in its configuration",
    options=OPTIONS,
    launch_options=launch_options,
    with_options=with_options,
    phases=PHASES,
    failures=FAILURES,
    failure_words=WORDS,
    memory=MEMORY,
    min_version="1.0",
    series=prometheus.SERIES,
)
