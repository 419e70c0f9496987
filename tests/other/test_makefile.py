"""Setting up says what it does while it does it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.folders import ROOT

MAKEFILE = ROOT / "Makefile"

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
]


def make(recipe: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "Makefile").write_text(f"include {MAKEFILE}\n\ntry:\n\t@{recipe}\n")
    return subprocess.run(
        ["make", "--no-print-directory", "try"], cwd=folder, capture_output=True, text=True
    )


def test_a_step_is_named_at_once_and_beats_until_it_is_done(tmp_path: Path) -> None:
    # It ends when the first beat has been heard, and is known to have been named before.
    with subprocess.Popen(
        ["make", "--no-print-directory", "-f", MAKEFILE, "-f", "-", "try"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stderr is not None
        wait = "while [ ! -e heard ]; do sleep 0.1; done"
        process.stdin.write(f"try:\n\t@$(call step,doing a thing,{wait})\n")
        process.stdin.close()
        said = ""
        while not said.endswith("."):
            said += process.stderr.read(1)
        (tmp_path / "heard").touch()
        rest = process.stderr.read()
    assert said.startswith("doing a thing .") and rest.rstrip().endswith(" s")
    assert process.returncode == 0


def test_a_step_that_fails_ends_the_whole(tmp_path: Path) -> None:
    done = make("$(call step,doing a thing,false); echo and on", tmp_path)
    assert done.returncode != 0
    assert "doing a thing  failed" in done.stderr and "and on" not in done.stdout


@pytest.mark.parametrize("uv", ["", "uv"])
def test_each_step_of_setting_up_is_one_that_says_so(tmp_path: Path, uv: str) -> None:
    for name in ("requirements.lock", "pyproject.toml", "Makefile"):
        (tmp_path / name).write_bytes((MAKEFILE.parent / name).read_bytes())
    plan = subprocess.run(
        ["make", "-n", "setup", f"UV={uv}"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    steps = [line for line in plan.splitlines() if line.startswith("printf '%s ' ")]
    assert len(steps) == 4
    for words in ("setting up .venv", "dependencies: ", "llmtop itself", "compiling"):
        assert any(words in step for step in steps)
