"""Installed engines, found by their metadata alone: nothing is run and nothing is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop.engines.host.installed import find_installed


def environment(folder: Path, package: str, version: str, *, under: str = "lib") -> Path:
    """A virtual environment with a package's metadata; returns its ``bin``."""
    site = folder / under / "python3.12" / "site-packages"
    metadata = site / f"{package}-{version}.dist-info"
    metadata.mkdir(parents=True)
    name = package.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "bin").mkdir(exist_ok=True)
    return folder / "bin"


def program(path: Path, text: str = "#!/bin/false\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def found(path: Path | str, *remembered: str) -> list[tuple[str, str, str | None, bool]]:
    return [
        (one.kind, one.program, one.version, one.remembered)
        for one in find_installed(str(path), remembered)
    ]


@pytest.mark.parametrize(
    ("package", "name", "kind", "version"),
    [
        ("vllm", "vllm", "vllm", "0.32.0+cpu"),
        ("sglang", "sglang", "sglang", "0.5.23"),
        ("tensorrt_llm", "trtllm-serve", "tensorrt-llm", "1.0.0"),
    ],
)
def test_the_version_stands_beside_the_program(
    tmp_path: Path, package: str, name: str, kind: str, version: str
) -> None:
    bin = environment(tmp_path, package, version)
    engine = program(bin / name)
    assert found(bin) == [(kind, str(engine), version, False)]


@pytest.mark.parametrize(
    "head", ["#!{python}\nimport sys\n", "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n"]
)
def test_a_program_elsewhere_is_followed_to_its_interpreter(tmp_path: Path, head: str) -> None:
    bin = environment(tmp_path / "venv", "vllm", "0.26.0")
    (tmp_path / "local").mkdir()
    engine = program(tmp_path / "local" / "vllm", head.format(python=bin / "python3"))
    assert found(tmp_path / "local") == [("vllm", str(engine), "0.26.0", False)]


def test_a_link_is_followed(tmp_path: Path) -> None:
    bin = environment(tmp_path / "venv", "vllm", "0.26.0")
    program(bin / "vllm")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "vllm").symlink_to(bin / "vllm")
    assert found(tmp_path / "local") == [
        ("vllm", str(tmp_path / "local" / "vllm"), "0.26.0", False)
    ]


def test_a_python_with_an_engine_counts_and_one_without_does_not(tmp_path: Path) -> None:
    bin = environment(tmp_path / "one", "sglang", "0.5.12")
    python = program(bin / "python3")
    (tmp_path / "two").mkdir()
    program(tmp_path / "two" / "python3")
    assert found(f"{tmp_path / 'two'}:{bin}") == [("sglang", str(python), "0.5.12", False)]
    # The engine's own program and its Python are one engine.
    program(bin / "sglang")
    assert len(found(bin)) == 1


def test_programs_that_llmtop_used_before_are_looked_at_too(tmp_path: Path) -> None:
    bin = environment(tmp_path, "vllm", "0.30.0")
    python = program(bin / "python3.12")
    assert found("", str(python), "relative/vllm", "/nowhere/vllm") == [
        ("vllm", str(python), "0.30.0", True)
    ]


def test_a_program_without_metadata_has_no_version(tmp_path: Path) -> None:
    engine = program(tmp_path / "vllm", "\x00not a script")
    assert found(tmp_path) == [("vllm", str(engine), None, False)]
    (tmp_path / "vllm").chmod(0o644)
    assert found(tmp_path) == []


def test_metadata_of_somebody_elses_making_does_no_harm(tmp_path: Path) -> None:
    bin = environment(tmp_path, "vllm", "1")
    site = tmp_path / "lib/python3.12/site-packages/vllm-1.dist-info/METADATA"
    site.write_bytes(b"Name: vllm\nVersion: 0.9\x1b[31m\xff\n")
    program(bin / "vllm")
    ((_, _, version, _),) = found(bin)
    assert version is None or version.isprintable()
