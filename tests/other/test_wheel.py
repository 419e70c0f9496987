"""The wheel: what it contains, and that it works in an environment that holds nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmtop import __version__
from tests.folders import ROOT

PLUGINS = {"vllm": "llmtop_vllm", "sglang": "llmtop_sglang"}


def run(*argv: str, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(argv, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_contains_what_runs_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == f"llmtop_tui-{__version__}-py3-none-any.whl"
    for engine, plugin in PLUGINS.items():
        inside = f"llmtop/engines/{engine}/plugin/{plugin}"
        assert {f"{inside}/__init__.py", f"{inside}-1.dist-info/entry_points.txt"} <= names
    for theme in (ROOT / "themes").glob("*.toml"):
        assert f"llmtop/themes/{theme.name}" in names
    assert {"llmtop/tui/llmtop.tcss", "llmtop/py.typed"} <= names
    assert f"llmtop_tui-{__version__}.data/data/share/man/man1/llmtop.1" in names
    assert not [one for one in names if "tests" in one.split("/") or "/test_" in one]
    assert not [one for one in names if one.endswith(".pyc")]
    # Site-packages gets one package: tui, engines, ... are parts of it.
    assert {one.split("/")[0].partition("-")[0] for one in names} == {"llmtop", "llmtop_tui"}


@pytest.mark.more
def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = str(venv / "bin" / "python")
    uv = shutil.which("uv")
    if uv is not None:
        run(uv, "venv", "--quiet", "--python", sys.executable, str(venv), cwd=tmp_path)
        run(uv, "pip", "install", "--quiet", "--python", python, str(wheel), cwd=tmp_path)
    else:
        run(sys.executable, "-m", "venv", str(venv), cwd=tmp_path)
        run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    llmtop = str(venv / "bin" / "llmtop")
    assert run(llmtop, "--version", cwd=tmp_path) == f"llmtop {__version__}\n"
    assert "llmtop demo [OPTIONS]" in run(llmtop, "demo", "--help", cwd=tmp_path)
    assert (venv / "share" / "man" / "man1" / "llmtop.1").is_file()
