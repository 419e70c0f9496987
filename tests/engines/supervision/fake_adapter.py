"""The adapter of ``tests/fake_engine.py``, a program that stands in for an engine."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from llmtop.engines.core.adapter import Adapter, FailurePattern, MetricText, Phase
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Reading
from tests.folders import TESTS


def command(spec: LaunchSpec) -> tuple[str, ...]:
    program = spec.program or (sys.executable, str(TESTS / "fake_engine.py"))
    return (*program, "--port", str(spec.port), *spec.args)


def environment(spec: LaunchSpec, live: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    return {"LLMTOP_LIVE_SOCKET": str(live)}


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    return Reading(time, elapsed)


FAKE = Adapter(
    "fake",
    "Fake Engine",
    8000,
    command,
    environment,
    read,
    (),
    (),
    phases=(
        Phase("weights", re.compile(r"Loading shards: (?P<done>\d+)/(?P<total>\d+)")),
        Phase("graphs", re.compile("Capturing graphs")),
    ),
    failures=(
        FailurePattern(
            r"KV cache needs (?P<need>\S+ GiB)",
            "the KV cache does not fit: it needs {need}",
            "lower the context length",
        ),
    ),
    simulated=True,
)
