"""TensorRT-LLM 1.0 and later: how trtllm-serve is started, and what is written beside it.

Built from its source and documentation; it was never run by us on real hardware.
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
from llmtop.engines.tuning.argv_parser import given


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``trtllm-serve MODEL --host --port``, the operator's flags, and our file unless theirs.

    No subcommand: the oldest versions have none, in the later ones serving is the default.
    """
    if given(spec.args, "--host", "--port"):
        raise UsageError(
            "llmtop must know where the engine listens",
            "give --port to llmtop itself, before the --",
        )
    if spec.model.startswith("-"):
        raise UsageError(f"{spec.model} is a flag, not a model", "flags go behind a --")
    told = config.told(spec.args)
    where = ("--host", spec.host, "--port", str(spec.port))
    # The older of the two names of this flag; the newer versions take both.
    file = ("--extra_llm_api_options", str(Path(spec.folder) / config.FILE))
    ours = file if told.settings is not None else ()
    return (*(spec.program or ADAPTER.program), spec.model, *where, *told.flags, *ours)


def files(spec: LaunchSpec) -> dict[str, str]:
    """The configuration file, unless the operator named one of their own."""
    settings = config.told(spec.args).settings
    return {config.FILE: config.text(settings)} if settings is not None else {}


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """What the engine's environment needs besides ``base``. It has no live options."""
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
    # Refused while it loads: the port is bound at once and listened on once the model is there.
    ready_path="/health",
    # The page that may be asked by anybody; /metrics is the reader's alone.
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
