"""Two canary rollouts at once: the second one is refused while the first has an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.cli.options.canary_lock import FILE, locked


def test_a_second_rollout_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    with locked(["one", "two"], tmp_path.joinpath):
        with (
            pytest.raises(LlmtopError, match="another canary rollout is changing two now"),
            locked(["three", "two"], tmp_path.joinpath),
        ):
            pytest.fail("both have it")
        with locked(["three"], tmp_path.joinpath):
            pass  # the refused one has released it
    with locked(["two"], tmp_path.joinpath):
        assert (tmp_path / "two" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LlmtopError, match=f"{FILE} cannot be written"),
        locked(["gone"], tmp_path.joinpath),
    ):
        pytest.fail("there is no lock")
