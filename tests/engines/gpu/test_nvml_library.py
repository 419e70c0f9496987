"""A real C library in the place of NVIDIA's: nothing that it answers gets further than the seam."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.folders import TESTS
from tests.llmtop_process import Home

SOURCE = TESTS / "data" / "standin_nvml.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
GIB = 2**30

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

# The library asks the environment at each call, so one process shows all of its moods.
READ = """
import json, os, sys
from llmtop.engines.gpu.devices import Gpus
from llmtop.cli.engines.once import gpu
seen = {}
for mode in sys.argv[1:]:
    os.environ["STANDIN_NVML"] = mode
    gpus = Gpus()
    found = [gpu(sample) for sample in gpus.read()]
    seen[mode] = {"gpus": found, "note": gpus.note, "versions": gpus.versions()}
    gpus.close()
print(json.dumps(seen))
"""
MODES = (
    "", "latin1", "garbage", "zero", "gb10", "gb10,zero", "jetson", "jetson,zero", "pids", "two",
    "mismatch", "forbidden", "unheard-of", "evil", "countless", "lost",
)  # fmt: skip


def built(folder: Path, *flags: str) -> Path:
    assert COMPILER is not None
    folder.mkdir()
    library = folder / "libnvidia-ml.so.1"
    command = [COMPILER, "-shared", "-fPIC", *flags, "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("nvml") / "whole")


def read(driver: Path, *modes: str) -> dict[str, Any]:
    """What llmtop reads in each of these moods of the library."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *modes],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=SOURCE.parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def seen(driver: Path) -> dict[str, Any]:
    return read(driver, *MODES)


def machine_total() -> int:
    line = Path("/proc/meminfo").read_text().splitlines()[0]
    return int(line.split()[1]) * 1024


def test_a_healthy_gpu(seen: dict[str, Any]) -> None:
    (gpu,) = seen[""]["gpus"]
    assert (seen[""]["note"], seen[""]["versions"]) == ("", ["580.95.05", "13.0"])
    assert gpu == {
        "index": 0, "name": "NVIDIA RTX 3080", "uuid": "GPU-0000",
        "memory_total_bytes": 16 * GIB, "memory_used_bytes": 2 * GIB, "memory_unified": False,
        "utilisation": 0.12, "power_w": 70.0, "power_limit_w": 320.0, "energy_j": 5.0,
        "temperature_c": 35.0, "sm_clock_mhz": 1500, "throttle": ["power cap"], "processes": [],
    }  # fmt: skip


def test_texts_that_are_not_utf8_cost_their_bad_bytes_alone(seen: dict[str, Any]) -> None:
    (gpu,) = seen["latin1"]["gpus"]
    assert gpu["name"] == "NVIDIA \ufffd\ufffd RTX" and gpu["uuid"] == "GPU-\ufffd"
    assert (gpu["memory_total_bytes"], gpu["utilisation"]) == (16 * GIB, 0.12)
    assert seen["latin1"]["versions"] == ["580.\ufffd", "13.0"]


def test_figures_that_cannot_be_are_unknown(seen: dict[str, Any]) -> None:
    (gpu,) = seen["garbage"]["gpus"]
    assert gpu["memory_total_bytes"] == 16 * GIB
    for name in (
        "memory_used_bytes", "utilisation", "power_w", "power_limit_w", "energy_j",
        "temperature_c", "sm_clock_mhz", "throttle",
    ):  # fmt: skip
        assert gpu[name] is None, name
    assert seen["garbage"]["versions"] == ["580.95.05", None]


def test_a_gpu_with_no_memory_at_all_has_unknown_memory(seen: dict[str, Any]) -> None:
    (gpu,) = seen["zero"]["gpus"]
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"]) == (None, None)
    assert not gpu["memory_unified"]


@pytest.mark.parametrize("mode", ["gb10", "gb10,zero", "jetson", "jetson,zero"])
def test_unified_memory_is_the_machines(seen: dict[str, Any], mode: str) -> None:
    (gpu,) = seen[mode]["gpus"]
    assert gpu["memory_unified"]
    assert gpu["memory_total_bytes"] == machine_total()
    assert 0 < gpu["memory_used_bytes"] < machine_total()


def test_numbers_that_are_no_process_are_dropped(seen: dict[str, Any]) -> None:
    (gpu,) = seen["pids"]["gpus"]
    assert gpu["processes"] == [
        {"pid": 4194302, "memory_bytes": None}, {"pid": 4194303, "memory_bytes": None},
    ]  # fmt: skip


def test_two_gpus_of_one_uuid_stay_two(seen: dict[str, Any]) -> None:
    found = seen["two"]["gpus"]
    assert [gpu["uuid"] for gpu in found] == ["GPU-0000", "index-1"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("mismatch", "of different versions"),
        ("forbidden", "does not start: no permission"),
        ("unheard-of", "does not start: "),
        ("evil", "does not start: broken"),
        ("countless", "reports 4294967295 GPUs"),
    ],
)
def test_a_driver_that_cannot_be_used_is_named(seen: dict[str, Any], mode: str, words: str) -> None:
    assert seen[mode]["gpus"] == [] and words in seen[mode]["note"]


def test_a_lost_gpu_is_told_and_the_rest_is_read(seen: dict[str, Any]) -> None:
    (gpu,) = seen["lost"]["gpus"]
    assert gpu["name"] == "GPU" and gpu["memory_total_bytes"] == 16 * GIB


def test_a_library_without_most_functions(tmp_path: Path) -> None:
    (gpu,) = read(built(tmp_path / "bare", "-DBARE"), "")[""]["gpus"]
    assert gpu["name"] == "NVIDIA RTX 3080"
    assert gpu["memory_total_bytes"] is None and not gpu["memory_unified"]
    assert gpu["utilisation"] is None and gpu["processes"] == []


@pytest.fixture
def home(driver: Path, tmp_path: Path) -> Home:
    return Home.make(tmp_path, {"LD_LIBRARY_PATH": str(driver), "STANDIN_PID": str(os.getpid())})


def with_mode(home: Home, mode: str) -> Home:
    return Home(home.folder, {**home.extra, "STANDIN_NVML": mode})


def test_doctor_names_a_driver_mismatch_and_its_remedy(home: Home) -> None:
    done = with_mode(home, "mismatch").run("doctor")
    assert done.code == 1
    assert "blocks   the NVIDIA kernel module" in done.out
    assert "of different versions: no engine can use a GPU" in done.out
    assert "reboot" in done.out and "nvidia_uvm" in done.out


def test_doctor_says_what_to_do_without_permission(home: Home) -> None:
    done = with_mode(home, "forbidden").run("doctor")
    assert done.code == 0
    assert "the NVIDIA driver does not start: no permission" in done.out
    assert "groups video and render" in done.out


def test_doctor_shows_unified_memory_as_the_machines(home: Home) -> None:
    done = with_mode(home, "gb10").run("doctor")
    assert "0 NVIDIA GB10: " in done.out and "unified: the machine's memory" in done.out
    (gpu,) = with_mode(home, "gb10").run("doctor", "--json").json["gpus"]
    assert gpu["memory_unified"] and gpu["memory_total_bytes"] == machine_total()


def test_doctor_survives_whatever_the_driver_says(home: Home) -> None:
    done = with_mode(home, "latin1,garbage,pids").run("doctor")
    assert done.code == 0 and not done.err
    assert "NVIDIA \ufffd\ufffd RTX: -- of 16.0 GiB used" in done.out
    assert "pid 4194303 outside" in done.out and "4294967295" not in done.out
