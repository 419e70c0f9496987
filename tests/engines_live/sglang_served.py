"""The real SGLang that scenarios share: how it is launched, on a CPU and without a hub."""

from __future__ import annotations

from pathlib import Path

from tests.engines_live.scenario import DTYPE

CAP = 8
STAND_INS = Path(__file__).resolve().parent / "sglang_cpu"
FLAGS = (
    *("--served-model-name", "small", "--dtype", DTYPE, "--device", "cpu"),
    *("--attention-backend", "torch_native", "--mem-fraction-static", "0.3"),
    *("--max-total-tokens", "8192", "--context-length", "2048"),
    *("--max-running-requests", str(CAP), "--chunked-prefill-size", "1024"),
    # Else its scheduler asks for work as fast as a core can.
    "--sleep-on-idle",
)
EVERY_TWO_STEPS = ("--decode-log-interval", "2")  # else llmtop's own choice
CPU = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    # --device alone is not enough: its layers ask for this.
    "SGLANG_USE_CPU_ENGINE": "1",
    "LLMTOP_TEST_ENGINE_CPU": "1",
}
# One core for each rank: without it SGLang wants as many NUMA nodes as there are ranks.
TWO_RANKS = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "LLMTOP_TEST_ENGINE_CPU": ""}
