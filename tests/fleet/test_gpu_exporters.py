"""Power and number of GPUs, asked of a real Prometheus that scrapes pages of GPU exporters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.power import Power, power_of
from llmtop.fleet.promql import Prometheus
from llmtop.fleet.queries import Queries
from tests.page_server import page_server
from tests.prometheus_server import running

pytestmark = [pytest.mark.process, pytest.mark.more]
LOOKS = 600
# a: two GPUs in one pod, the second one is shared out in two parts. b: another exporter, 3 GPUs.
PAGE = """\
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-0",Hostname="a",exported_pod="vllm-0"} 300
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-1",Hostname="a",exported_pod="vllm-0",GPU_I_ID="1"} 500
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-1",Hostname="a",exported_pod="vllm-0",GPU_I_ID="2"} 500
nvidia_smi_power_draw_watts{uuid="u0",node="b"} 100
nvidia_smi_power_draw_watts{uuid="u1",node="b"} 100
nvidia_smi_power_draw_watts{uuid="u2",node="b"} 100
"""


def test_gpus_are_counted_once_whatever_they_are_shared_out_to(tmp_path: Path) -> None:
    question = Queries(tuple(ADAPTERS.values())).gpus

    async def ask(url: str) -> Power:
        client = Prometheus(url)
        try:
            for _ in range(LOOKS):
                if found := await client.query(question):
                    break
                await asyncio.sleep(0.1)
            return power_of(found)
        finally:
            await client.close()

    with page_server(PAGE) as port:
        job = {"job_name": "gpu", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        with running(tmp_path / "p", [job]) as server:
            power = asyncio.run(ask(server.url))
    assert power.hosts == {"a": 800.0, "b": 300.0} and power.pods == {"vllm-0": 800.0}
    assert power.host_gpus == {"a": 2.0, "b": 3.0} and power.pod_gpus == {"vllm-0": 2.0}
