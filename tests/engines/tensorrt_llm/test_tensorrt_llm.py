"""Starting TensorRT-LLM: its command, its file, its options, and its life under the supervisor.

trtllm-serve itself cannot run here: ``fake_trtllm_serve.py`` stands for it, as a real process.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.engines.core.options import Applies, OptionValue
from llmtop.engines.core.records import EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import Counter
from llmtop.engines.host.processes import Processes
from llmtop.engines.logs.startup import StartupLog
from llmtop.engines.metrics.scraper import HttpFetch, open_reader
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.engines.tensorrt_llm.adapter import ADAPTER
from llmtop.engines.tensorrt_llm.options import launch_options, with_option
from llmtop.values import replace
from tests.failure_logs import bare, told
from tests.folders import TESTS
from tests.llmtop_process import free_port

FAKE = (sys.executable, str(TESTS / "fake_trtllm_serve.py"))
DEADLINE_S = 30.0


def spec(*args: str, port: int = 8000) -> LaunchSpec:
    return LaunchSpec("tensorrt-llm", "a", "tiny", "127.0.0.1", port, args=args, folder="/state/a")


def written(*args: str) -> dict[str, object]:
    """Our file as it is read: sections by indentation, values in JSON."""
    found: dict[str, object] = {}
    path: list[tuple[int, dict[str, object]]] = [(-1, found)]
    for line in ADAPTER.files(spec(*args))["trtllm-serve.yaml"].splitlines():
        if line.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        key, _, value = line.strip().partition(":")
        while path[-1][0] >= indent:
            path.pop()
        inner: dict[str, object] = {}
        path[-1][1][key] = json.loads(value) if value else inner
        if not value:
            path.append((indent, inner))
    return found


OURS = {"enable_iter_perf_stats": True, "return_perf_metrics": True}


# The command and the file


def test_the_command_names_our_file_by_the_oldest_flag() -> None:
    assert ADAPTER.command(spec("--max_batch_size", "8")) == (
        *("trtllm-serve", "tiny", "--host", "127.0.0.1", "--port", "8000"),
        *("--max_batch_size", "8", "--extra_llm_api_options", "/state/a/trtllm-serve.yaml"),
    )
    assert written("--max_batch_size", "8") == OURS


def test_settings_go_into_the_file_and_not_onto_the_command_line() -> None:
    args = (
        *("--set", "kv_cache_config.enable_block_reuse=false"),
        *("--set=kv_cache_config.dtype=fp8", "--tp_size", "2"),
        *("--set", "speculative_config.decoding_type=NGram"),
        *("--set", "speculative_config.max_draft_len=4"),
        *("--set", 'speculative_config.draft_len_schedule={"4": 4, "8": 2}'),
        *("--set", "cuda_graph_config=null", "--set", "print_iter_log=True"),
    )
    command = ADAPTER.command(spec(*args))
    assert "--set" not in " ".join(command)
    assert command[-4:-2] == ("--tp_size", "2")
    assert written(*args) == {
        **OURS,
        "kv_cache_config": {"enable_block_reuse": False, "dtype": "fp8"},
        "speculative_config": {
            "decoding_type": "NGram",
            "max_draft_len": 4,
            "draft_len_schedule": {"4": 4, "8": 2},
        },
        "cuda_graph_config": None,
        "print_iter_log": True,
    }


def test_what_we_write_can_be_unset() -> None:
    assert written("--set", "return_perf_metrics=false") == {**OURS, "return_perf_metrics": False}


@pytest.mark.parametrize("flag", ["--config", "--extra_llm_api_options", "--config="])
def test_a_file_of_the_operators_own_is_the_only_one(flag: str) -> None:
    args = (flag + "/etc/mine.yaml",) if flag.endswith("=") else (flag, "/etc/mine.yaml")
    args = (*args, "--set", "max_batch_size=8")  # which the newest versions take themselves
    assert ADAPTER.files(spec(*args)) == {}
    assert ADAPTER.command(spec(*args))[6:] == args


@pytest.mark.parametrize(
    "flag", ["--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"]
)
def test_the_kv_fraction_moves_to_where_the_rest_of_its_section_is(flag: str) -> None:
    """Old versions would replace the flag's section by the file's."""
    args = (flag, "0.8", "--set", "kv_cache_config.dtype=fp8")
    assert flag not in ADAPTER.command(spec(*args))
    section = {"dtype": "fp8", "free_gpu_memory_fraction": 0.8}
    assert written(*args) == {**OURS, "kv_cache_config": section}
    assert flag in ADAPTER.command(spec(flag, "0.8"))
    assert written(flag, "0.8") == OURS


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--max_batch_size=8", "--set", "max_batch_size=9"), "max_batch_size is given twice"),
        (
            (
                *("--free_gpu_memory_fraction", "0.8"),
                *("--set", "kv_cache_config.free_gpu_memory_fraction=0.7"),
            ),
            "given twice: as --free_gpu_memory_fraction",
        ),
        (("--set", "dtype"), "'dtype' is not PATH=VALUE"),
        (("--set",), "is not PATH=VALUE"),
        (("--set", "a\nb=1"), "is not PATH=VALUE"),
        (
            ("--set", "kv_cache_config=null", "--set", "kv_cache_config.dtype=fp8"),
            "kv_cache_config is set to null",
        ),
        (("--port", "9000"), "where the engine listens"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_way_out(
    args: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        ADAPTER.command(spec(*args))
    assert message in refused.value.message
    assert refused.value.hint


def test_text_cannot_break_out_of_its_place_in_the_file() -> None:
    text = 'x"\nreturn_perf_metrics: false\x1b[31m\u2028'
    assert written("--set", f"a.b={text}") == {**OURS, "a": {"b": text}}
    assert all(
        line.isprintable()
        for line in ADAPTER.files(spec("--set", f"a={text}"))["trtllm-serve.yaml"].split("\n")
    )


# Options


def test_every_option_is_by_restart_and_survives_being_changed() -> None:
    for option in ADAPTER.options:
        assert option.applies is Applies.RESTART
        value: OptionValue = option.choices[-1] if option.choices else 1
        value = (
            False if option.name == "cuda_graphs" else bool(value) if option.kind is bool else value
        )
        value = float(value) if option.kind is float else value  # type: ignore[arg-type]
        args = with_option(("--trust_remote_code", "--revision", "x"), option.name, value)
        assert launch_options(args)[option.name] == value
        assert args[:3] == ("--trust_remote_code", "--revision", "x")
        ADAPTER.command(spec(*args))
        assert option.name not in launch_options(with_option(args, option.name, None))


def test_a_change_replaces_every_spelling_of_the_old_value() -> None:
    args = ("--tensor_parallel_size=2", "--max_batch_size", "8", "--set", "max_seq_len=512")
    assert with_option(args, "tp_size", 4) == (*args[1:], "--tp_size", "4")
    assert with_option(args, "max_seq_len", 1024) == (*args[:3], "--max_seq_len", "1024")
    off = with_option(("--set", "cuda_graph_config.max_batch_size=8"), "cuda_graphs", False)
    assert off == ("--set", "cuda_graph_config=null")
    limited = with_option(off, "cuda_graph_max_batch_size", 4)
    assert limited == ("--set", "cuda_graph_config.max_batch_size=4")


@pytest.mark.parametrize(("name", "value"), [("max_draft_len", 0), ("decoding_type", "off")])
def test_speculation_off_leaves_nothing_of_it(name: str, value: OptionValue) -> None:
    args = (
        *("--set", "speculative_config.decoding_type=NGram"),
        *("--set", "speculative_config.max_draft_len=4", "--tp_size", "2"),
    )
    assert launch_options(args)["max_draft_len"] == 4
    assert with_option(args, name, value) == ("--tp_size", "2")


def test_options_in_a_file_of_the_operators_own_are_theirs_to_change() -> None:
    args = ("--config", "mine.yaml", "--max_batch_size", "8")
    assert launch_options(args) == {"max_batch_size": 8}
    assert with_option(args, "max_batch_size", 4)[-2:] == ("--max_batch_size", "4")
    with pytest.raises(UsageError, match="is set in the configuration file"):
        with_option(args, "kv_cache_dtype", "fp8")
    with pytest.raises(UsageError, match="no option 'max_num_seqs'"):
        with_option(args, "max_num_seqs", 4)


# The log


def test_phases_of_a_start() -> None:
    log = StartupLog(ADAPTER.phases)
    seen = []
    for line in (
        "[TensorRT-LLM] TensorRT-LLM version: 1.1.0rc3",
        "rank 0 using MpiPoolSession to spawn MPI processes",
        "[TRT-LLM] [I] Use 63.32 GB for model weights.",
        "Loading weights: 12%|#| 96/801 [00:05<00:46, 17.29it/s]",
        "Model init total -- 49.14s",
        "[TRT-LLM] [I] [Autotuner] Autotuning process starts ...",
        "[TRT-LLM] [I] Creating CUDA graph instances for 11 batch sizes.",
        "[TRT-LLM] [I] Memory used outside torch (e.g., NCCL) in memory usage profiling: 1.0 GiB",
        "[TRT-LLM] [I] Estimated max memory in KV cache : 5.95 GiB",
        "[TRT-LLM] [I] [Autotuner] Autotuning process starts ...",
        "INFO:     Started server process [41]",
    ):
        log.feed([line], 0.0)
        seen.append(log.phase)
    assert seen == [
        *("importing", "workers", "weights", "weights 96/801", "KV cache", "autotuner"),
        *("CUDA graphs", "memory profile", "second round", "second round", "API server"),
    ]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [
                "torch.OutOfMemoryError: CUDA out of memory.",
                "RuntimeError: Executor worker returned",
            ],
            "out of GPU memory",
        ),
        (["ValueError: No GPU devices found on the node"], "no usable NVIDIA GPU"),
        (["Error: No such option: --max-batch-size"], "does not know the flag --max-batch-size"),
        (["Error: No such option '--set'."], "does not accept --set"),
        (
            ["Error: Invalid value for '--tp_size': 'x' is not a valid integer."],
            "refused '--tp_size': 'x' is not a valid integer",
        ),
        (
            bare("ValidationError: 2 validation errors for TorchLlmArgs\nkv_cache\n  Field x"),
            "TorchLlmArgs was refused: kv_cache: Field x",
        ),
        (
            ["RuntimeError: Failed to bind socket to 0.0.0.0:80: [Errno 13] Permission denied"],
            "the port cannot be opened (0.0.0.0:80)",
        ),
        (["RuntimeError: Executor worker returned error"], "one of its processes died"),
        (["enable_typo", "  Extra inputs are not permitted [type=extra_forbidden]"], "has a key"),
        (
            ["Executor creation failed due to insufficient GPU memory.", "see above"],
            "out of GPU memory",
        ),
        (
            ["The following component could not be created: KV cache manager", "memory_usage: 1"],
            "out of GPU memory while creating: KV cache manager",
        ),
        (["Executor creation failed with NCCL error: unhandled"], "(NCCL)"),
        (
            ["CUDA error: invalid device ordinal", "RuntimeError: Executor worker returned error"],
            "asks for a GPU that does not exist",
        ),
        (
            ["There are not enough slots available in the system to satisfy the 8 slots"],
            "MPI does not start as many workers",
        ),
        (["CppExecutorError: forwardAsync failed"], "one of its processes died"),
        (["RuntimeError: The NVIDIA driver on your system is too old (found 11040)."], "driver is"),
        (["Cannot access gated repo for url https://hub/x"], "gated"),
        (["mpirun noticed that process rank 1 was killed by signal 9"], "killed (SIGKILL)"),
    ],
)
def test_failures_are_told_in_words(lines: list[str], cause: str) -> None:
    found = told("trt", [*lines, "some last line"])
    assert found is not None
    assert cause in found.cause
    assert found.advice


# Its life under the supervisor


@pytest.fixture
def supervisor(state: StateDirectory) -> Supervisor:
    return Supervisor(state, {ADAPTER.kind: ADAPTER}, environ=os.environ)


def asked(*args: str) -> LaunchSpec:
    port = free_port()
    return replace(spec(*args, port=port), program=FAKE, folder="")


def complete(url: str) -> bytes:
    body = json.dumps({"prompt": "a b c", "max_tokens": 5}).encode()
    with urllib.request.urlopen(f"{url}/v1/completions", body, timeout=DEADLINE_S) as answer:
        found: bytes = answer.read()
    return found


def test_launch_phases_ready_and_a_private_file(
    supervisor: Supervisor, state: StateDirectory, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    record = supervisor.launch(
        asked("--set", "max_batch_size=4", "--tp_size", "1", "--fake_wait_for", str(go))
    )
    file = state.folder("a") / "trtllm-serve.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "max_batch_size: 4" in file.read_text()
    assert str(file) in record.command
    seen: list[EngineStatus] = []

    def watch(status: EngineStatus) -> None:
        seen.append(status)
        if status.phase == "weights 801/801":
            # Bound and not listened on: whoever connects is refused.
            with pytest.raises(ConnectionRefusedError), socket.socket() as client:
                client.connect(("127.0.0.1", record.spec.port))
            go.touch()

    ready = supervisor.wait_ready(record, DEADLINE_S, watch)
    assert ready.state is State.READY
    assert "weights 801/801" in [status.phase for status in seen]
    assert supervisor.stop(record).exit_code == 0
    assert not Processes().writers(Path(record.log_path))


async def test_load_is_seen_through_the_reader_and_a_restart_is_one(
    supervisor: Supervisor, state: StateDirectory
) -> None:
    record = supervisor.launch(asked())
    supervisor.wait_ready(record, DEADLINE_S)
    fetch = HttpFetch()
    reader = open_reader(ADAPTER, record.url, fetch, state.locks)
    try:
        assert (await asyncio.to_thread(complete, record.url)).count(b"token") == 5
        deadline = time.monotonic() + DEADLINE_S
        while (await reader.read()).counters.get(Counter.OUTPUT_TOKENS) != 5:
            assert time.monotonic() < deadline
        assert reader.note == ""
    finally:
        await reader.close()
        await fetch.close()
    supervisor.stop(record)
    again = supervisor.launch(replace(asked(), args=("--max_batch_size", "2")))
    assert supervisor.wait_ready(again, DEADLINE_S).record.command[-4:-2] == (
        "--max_batch_size",
        "2",
    )
    supervisor.stop(again)


@pytest.mark.parametrize(
    ("args", "cause", "excerpt"),
    [
        (("--fake_oom",), "out of GPU memory while creating: KV cache", "Total GPU memory"),
        (("--set", "kv_cache_config.blocks=1"), "a key that this TensorRT-LLM", "config.blocks"),
        (("--max-batch-size", "8"), "does not know the flag --max-batch-size", "No such option"),
    ],
)
def test_a_start_that_fails_is_explained(
    supervisor: Supervisor, args: tuple[str, ...], cause: str, excerpt: str
) -> None:
    record = supervisor.launch(asked(*args))
    with pytest.raises(LaunchFailed) as failed:
        supervisor.wait_ready(record, DEADLINE_S)
    assert cause in failed.value.message
    assert failed.value.hint
    assert excerpt in "\n".join(failed.value.excerpt)


def test_what_cannot_be_meant_starts_nothing(supervisor: Supervisor, state: StateDirectory) -> None:
    with pytest.raises(UsageError, match="given twice"):
        supervisor.launch(asked("--tp_size", "2", "--set", "tensor_parallel_size=4"))
    assert supervisor.records() == []
    assert not (state.folder("a") / "trtllm-serve.yaml").exists()
