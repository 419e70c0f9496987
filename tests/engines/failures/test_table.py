"""Which of a log's errors is the cause, what an end by a signal means, and what a log may cost."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from llmtop.engines.core.adapter import FailurePattern
from llmtop.engines.failures.errors import KEPT
from llmtop.engines.failures.evidence import Evidence
from llmtop.engines.failures.table import GENERAL, explain
from tests.failure_logs import bare, core, front, lines, running, scheduler, told, worker

_INFO = "(EngineCore pid=412) INFO 06-02 10:11:12 [core.py:96] working"
_HARMLESS = [
    "(EngineCore pid=412) ERROR 06-02 10:11:11 [fa_utils.py:57] Cannot use FA version 3",
    *("(EngineCore pid=412) " + line for line in bare("ModuleNotFoundError: No module named 'x'")),
    *[_INFO] * 20,
    "(APIServer pid=300) INFO:     Application startup complete.",
]


def cause(log: list[str], exit_code: int | None = 1, engine: str = "vllm") -> str:
    found = told(engine, log, exit_code)
    return found.cause if found is not None else ""


# Which error


def test_the_deepest_process_counts_before_the_first_line() -> None:
    log = [*front("ValueError: what the front end made of it"), *worker("ValueError: of a worker")]
    assert cause(log) == "it failed with ValueError: of a worker"


def test_of_two_ranks_the_first_counts() -> None:
    first = worker("torch.OutOfMemoryError: CUDA out of memory.")
    second = [line.replace("TP0 pid=455", "TP1 pid=456") for line in worker("ValueError: other")]
    assert cause([*first[:5], *second]) == "out of GPU memory"


@pytest.mark.parametrize("effect", [
    "RuntimeError: [gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1234",
    "torch.distributed.DistBackendError: failed to recv, got 0 bytes",
    "EOFError",
    "concurrent.futures._base.CancelledError",
])  # fmt: skip
def test_what_a_dead_neighbour_causes_is_no_cause(effect: str) -> None:
    log = [
        *(line.replace("Worker_TP0", "Worker_TP1") for line in worker(effect)[:5]),
        *worker("ValueError: the cause"),
    ]
    assert cause(log) == "it failed with ValueError: the cause"


def test_effects_alone_are_told_with_what_they_know() -> None:
    log = [
        "(EngineCore pid=9) ERROR 11-22 06:00:00 [multiproc_executor.py:315] Worker proc "
        "VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
        *front("RuntimeError: Engine core initialization failed. See root cause above."),
    ]
    assert cause(log) == "its process VllmWorker-0 was killed (SIGKILL)"
    assert cause(log[1:]) == "the engine core did not start"


@pytest.mark.parametrize("joint", [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
])  # fmt: skip
def test_a_chain_is_followed_to_its_root(joint: str) -> None:
    chain = "\n".join(
        ["ValueError: the table has no row for it", "", joint, "", *bare("RuntimeError: no go")]
    )
    assert cause(core(chain)) == "it failed with ValueError: the table has no row for it"
    known = "\n".join(["KeyError: 'x'", "", joint, "", *bare("RuntimeError: No CUDA GPUs are "
                       "available")])  # fmt: skip
    assert cause(core(known)) == "it found no usable NVIDIA GPU"


def test_a_group_of_exceptions_is_read() -> None:
    log = lines(
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/x.py", line 1, in run\n'
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/x.py", line 2, in task\n'
        "    | RuntimeError: No CUDA GPUs are available\n"
        "    +------------------------------------"
    )
    assert cause(log) == "it found no usable NVIDIA GPU"


@pytest.mark.parametrize(("line", "expected"), [
    ("/usr/bin/ld: cannot find -lcuda: No such file or directory", "linker does not find libcuda"),
    ("/tmp/x/main.c:5:10: fatal error: Python.h: No such file or directory", "Python.h is missing"),
    ("ptxas fatal   : Value 'sm_120a' is not defined for option 'gpu-name'", "not know sm_120a"),
    ("/bin/sh: 1: nvcc: not found", "nvcc"),
    ("cc1plus: fatal error: cuda_runtime.h: No such file or directory", "cuda_runtime.h"),
    ("c++: fatal error: Killed signal terminated program cc1plus", "the main memory ran out"),
])  # fmt: skip
def test_what_a_tool_prints_explains_the_error_that_only_names_the_tool(
    line: str, expected: str
) -> None:
    vague = core(
        "torch._inductor.exc.InductorError: CalledProcessError: Command '['/usr/bin/gcc', 'm.c']' "
        "returned non-zero exit status 1."
    )
    found = told("vllm", [line, "collect2: error: ld returned 1 exit status", *vague])
    assert found is not None
    assert expected in found.cause
    assert line in found.excerpt
    assert "compiling a kernel failed" in cause(vague)


def test_nccls_own_reason_explains_an_unhandled_system_error() -> None:
    log = [
        "host:9:9 [0] misc/shmutils.cc:88 NCCL WARN Error: failed to extend /dev/shm/nccl-WU88OE to"
        " 9637892 bytes, error: No space left on device (28)",
        *worker("torch.distributed.DistBackendError: NCCL error in: x.cpp:268, unhandled system "
                "error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5"),
    ]  # fmt: skip
    assert "shared memory (/dev/shm)" in cause(log)
    assert "NCCL" in cause(log[1:])


def test_a_line_that_only_informs_explains_nothing() -> None:
    log = [
        "(APIServer pid=3) INFO 06-02 10:11:12 [logger.py:39] Received request: 'CUDA out of "
        "memory'",
        "(APIServer pid=3) WARNING 06-02 10:11:12 [system_utils.py:255] `OSError: [Errno 24] Too "
        "many open files`",
        "[2026-06-02 10:11:12] Receive: obj=GenerateReqInfo(text='No space left on device')",
        "=== llmtop 2026-11-22T00:00:00+00:00 starts: vllm serve 'CUDA out of memory' ===",
        *core("ValueError: the cause"),
    ]
    assert cause(log) == "it failed with ValueError: the cause"


def test_an_error_that_was_outlived_is_not_the_cause() -> None:
    early = bare("torch.OutOfMemoryError: CUDA out of memory.")
    served = [
        *early,
        "(APIServer pid=300) INFO:     Application startup complete.",
        *running("ValueError: the cause"),
    ]
    assert cause(served, 0) == "it failed with ValueError: the cause"
    request = [
        "(APIServer pid=300) ERROR:    Exception in ASGI application",
        *("(APIServer pid=300) " + line for line in bare("ValueError: a client's fault")),
        *['(APIServer pid=300) INFO:     127.0.0.1:3 - "POST /v1 HTTP/1.1" 200 OK'] * 20,
    ]
    assert cause([*request, *running("RuntimeError: the cause")[1:]], 0).endswith("the cause")


# Its own words


def test_an_unknown_error_is_told_in_its_own_words() -> None:
    assert (
        cause(core("pkg.QuotaError: no more pages")) == "it failed with QuotaError: no more pages"
    )
    place = core("AssertionError")
    assert cause(place) == "it failed with AssertionError at: run()"
    long = cause(core("ValueError: " + "x" * 5000))
    assert len(long) == 300
    braces = cause(core('ValueError: Unexpected keys: {"engine": 1, "log": {log}}'))
    assert braces.endswith('{"engine": 1, "log": {log}}')


def test_an_error_without_a_traceback_is_told_in_its_own_words() -> None:
    assert "the quota is used up" in cause(["ERROR: the quota is used up"])
    assert cause(["pkg.QuotaError: used up", "bye"]) == "it failed with QuotaError: used up"


def test_the_engines_own_table_goes_before_the_general_one() -> None:
    table = (
        FailurePattern("never", "not this", ""),
        FailurePattern(r"wants (?P<need>\d+)", "it needs {need}", "give it {need}"),
    )
    found = explain(["CUDA out of memory", "x", "it wants 42", "y"], table)
    assert found is not None
    assert (found.cause, found.advice) == ("it needs 42", "give it 42")
    assert found.excerpt == ("CUDA out of memory", "x", "it wants 42", "y")


def test_the_excerpt_shows_the_line_that_tells_the_cause() -> None:
    log = front(
        "pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, The "
        "model type `q` but Transformers does not recognize this architecture.\n\nYou can update"
    )
    found = told("vllm", log)
    assert found is not None
    assert any("model type `q`" in line for line in found.excerpt)
    assert any("1 validation error" in line for line in found.excerpt)


def test_a_child_that_crashed_is_named_when_its_parent_then_kills_itself() -> None:
    log = [
        "[2026-11-22 08:59:29] Subprocess scheduler_0 (pid=17554) crashed with exit code -11. "
        "Triggering SIGQUIT for cleanup...",
        "[2026-11-22 08:59:29] SIGQUIT received. signum=None, frame=None.",
    ]
    assert cause(log, -9, "sglang") == "its process scheduler_0 was ended by signal 11"


# Ends by a signal


@pytest.mark.parametrize(
    ("exit_code", "name"),
    [(-15, "SIGTERM"), (143, "SIGTERM"), (-2, "SIGINT"), (130, "SIGINT"), (-1, "SIGHUP")],
)
def test_a_signal_from_outside_is_named_whatever_the_start_printed(
    exit_code: int, name: str
) -> None:
    for log in (_HARMLESS, _HARMLESS[:6], [], bare("RuntimeError: No CUDA GPUs are available")):
        assert cause(log, exit_code) == f"ended by {name}, not by llmtop"


@pytest.mark.parametrize("exit_code", [-9, 137])
def test_sigkill_is_named_and_blames_the_kernel_only_with_evidence(exit_code: int) -> None:
    found = told("vllm", _HARMLESS, exit_code)
    assert found is not None
    assert found.cause == "killed (SIGKILL), not by llmtop"
    assert "memory" not in found.cause
    killer = [*_HARMLESS, "[123.4] Out of memory: Killed process 412 (python) total-vm:99kB"]
    assert "the kernel's out-of-memory killer" in cause(killer, exit_code)


def test_an_engine_that_kills_itself_has_said_why() -> None:
    log = scheduler("torch.OutOfMemoryError: CUDA out of memory.")
    assert cause(log, -9, "sglang") == "out of GPU memory"
    watchdog = [
        "[2026-06-02 10:11:12] Watchdog timeout (self.watchdog_timeout=300, self.soft=False)",
        "[2026-06-02 10:11:12] Received sigquit from a child process. It usually means the child "
        "failed.",
    ]
    for exit_code in (-3, -9, 131):
        assert "no progress for 300 s" in cause(watchdog, exit_code, "sglang")
    dead_core = running("torch.AcceleratorError: CUDA error: an illegal memory access")
    for exit_code in (0, 1, -9, -15):
        assert cause(dead_core, exit_code) == "a CUDA kernel made an illegal memory access"


def test_a_crash_by_signal_is_named() -> None:
    assert cause(["serving"], -11) == "it crashed (SIGSEGV)"
    assert cause(["serving"], 139) == "it crashed (SIGSEGV)"


def test_the_advice_after_a_crash_names_the_engine() -> None:
    found = explain(["serving"], (), -11, words={"log": "llmtop logs chat"})
    assert found is not None
    assert found.advice == "read its last lines: llmtop logs chat"
    assert cause(["Fatal Python error: Segmentation fault"], -11).endswith("Segmentation fault")
    assert "/dev/shm" in cause(["Fatal Python error: Bus error"], -7)


def test_an_engine_that_was_asked_to_end_has_no_fault() -> None:
    log = [
        *_HARMLESS,
        "(APIServer pid=3) INFO 11-22 05:46:02 [launcher.py:254] [shutdown] API server: shutdown "
        "triggered",
        "INFO:     Shutting down",
        "nanobind: leaked 2 instances!",
    ]
    assert cause(log, 0) == "ended by SIGTERM or SIGINT, not by llmtop"
    assert cause(front("KeyboardInterrupt: terminated"), 1) == "ended by SIGTERM, not by llmtop"
    assert cause(front("KeyboardInterrupt"), 1) == "ended by SIGINT, not by llmtop"
    sglang = ["[2026-06-02 10:11:12] SIGTERM received. signum=None frame=None. Draining requests"]
    assert cause(sglang, 0, "sglang") == "ended by SIGTERM, not by llmtop"
    assert cause(["INFO working"], 0) == ""


# What a log may be


@pytest.mark.more
def test_a_log_of_nothing_but_errors_is_read_in_bounded_memory() -> None:
    dice = random.Random(1)

    def hostile() -> Iterator[str]:
        yield from worker("torch.OutOfMemoryError: CUDA out of memory.")
        for number in range(10_000):
            yield f"(Worker_{number} pid={number}) Traceback (most recent call last):"
            yield f"(Worker_{number} pid={number}) ValueError: {dice.random()} cannot failed memory"
            yield f"Error: {dice.random()} failed" + "x" * 200

    found = told("vllm", list(hostile()))
    assert found is not None and found.cause == "out of GPU memory"
    # Kept are the first errors, and of the deepest processes; not one for each line.
    assert len(Evidence((), GENERAL, hostile()).suspects()) < 2 * KEPT


@pytest.mark.parametrize("piece", [
    "(" * 50, "[rank1", "ERROR ", "[TRT-LLM]", "Traceback (most recent call last):", "| ",
    "requires ",
    "NCCL error ", "Assertion failed: ", "1 validation error for X\n", "a/", "FP8 ", "Command '[",
    "No space left on device", "[Errno 13] Permission denied: '/", "memory on device ", "/dev/shm ",
])  # fmt: skip
def test_a_line_of_beginnings_is_searched_in_bounded_time(piece: str) -> None:
    # An expression that tries every way to cut such a line would not end within the suite's time.
    line = (piece * (4000 // len(piece)))[:4000]
    assert told("vllm", [*(line for _ in range(5)), *core("ValueError: " + line)]) is not None


@pytest.mark.parametrize(("exit_code", "likely", "advice"), [
    (-7, "/dev/shm", "--shm-size"), (135, "/dev/shm", "--shm-size"),
    (-4, "this processor lacks instructions", "build"), (132, "lacks instructions", "lscpu"),
])  # fmt: skip
def test_a_crash_without_a_text_names_its_likely_cause_as_likely(
    exit_code: int, likely: str, advice: str
) -> None:
    found = explain(["serving"], (), exit_code)
    assert found is not None and "likely cause" in found.cause
    assert likely in found.cause and advice in found.advice


def test_a_request_that_failed_before_a_clean_end_is_no_cause() -> None:
    head = "(APIServer pid=300) ERROR 06-02 10:11:12 [serving_chat.py:200] "
    error = bare("ValueError: The decoder prompt is longer than the model's context of 4096")
    log = [head + line for line in ("Error in preprocessing prompt inputs", *error)]
    assert cause(log, 0) == ""
    assert cause(log, 1) != ""


@pytest.mark.parametrize("warning", [
    "UserWarning: expandable segments: CUDA out of memory may follow",
    "/opt/torch/cuda/memory.py:12: UserWarning: CUDA out of memory. Tried to allocate 2 GiB",
    "W1122 06:00:00.000000 123 memory.cpp:12] CUDA out of memory",
])  # fmt: skip
def test_a_warning_counts_less_than_an_error(warning: str) -> None:
    assert (
        cause([warning, *bare("ValueError: the cause")]) == "it failed with ValueError: the cause"
    )
    out = "torch.OutOfMemoryError: CUDA out of memory."
    assert cause([warning, out]) == "out of GPU memory"


@pytest.mark.parametrize(
    ("last_words", "cause"),
    [
        (("INFO:     Finished server process [300]",), "its worker process VllmWorker-0 died"),
        # Another's orderly end, of a server that this one started, says nothing of this one.
        (("INFO:     Finished server process [301]",), None),
        ((), None),
    ],
)
def test_a_server_that_wrote_its_orderly_end_was_not_killed(
    last_words: tuple[str, ...], cause: str | None
) -> None:
    # vLLM 0.32 when its worker was killed: the resource tracker outlives the server by a moment.
    ready, *rest = running("RuntimeError: Executor failed.")
    log = [
        ready,
        "(EngineCore pid=412) ERROR 06-02 10:11:12 [multiproc_executor.py:315] Worker proc "
        "VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.",
        *rest,
        "Process EngineCore:",
        *bare("RuntimeError: Executor failed."),
        "INFO:     Shutting down",
        "INFO:     Waiting for application shutdown.",
        "INFO:     Application shutdown complete.",
        *last_words,
    ]
    found = explain(log, sudden=True, pid=300)
    assert (found and found.cause) == cause
