"""The manual page: complete, current, and without a fault of roff."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from llmtop.cli.common.command_table import COMMANDS
from llmtop.cli.common.man import page
from llmtop.cli.main import group
from tests.folders import ROOT

PAGE = ROOT / "docs" / "llmtop.1"


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text() == page(group), "run `make man`"


def test_each_command_has_a_section_with_its_options() -> None:
    text = page(group)
    for name in COMMANDS:
        assert f'.SS "llmtop {name}' in text
    assert ".SH EXIT STATUS" in text and "\n.B \\-\\-readonly" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_renders_it_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(PAGE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "llmtop run vllm Qwen/Qwen2.5-7B-Instruct -- --max-num-seqs 512" in done.stdout
