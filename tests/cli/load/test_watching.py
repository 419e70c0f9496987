"""What a person sees while a load runs, and when it has failed."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmtop import LlmtopError
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.load.watching import require_result, watch
from llmtop.loadgen.core.results import NOTHING, ClientHealth, LoadResult
from llmtop.loadgen.workers.load import Load
from llmtop.values import replace

FAILED = LoadResult(
    0, 2, 0, 1.0, 0, None, None, NOTHING, NOTHING, NOTHING, NOTHING,
    ClientHealth("valid", "kernel"), errors={"HTTP 404": 2},
)  # fmt: skip


class Stopped:
    """A load that is interrupted at each look, until it is cut."""

    def __init__(self) -> None:
        self.drains: list[bool] = []
        self._pipe = os.pipe()

    @property
    def finished(self) -> bool:
        if self.drains[-1:] != [False]:
            raise KeyboardInterrupt
        return True

    def stop(self, *, drain: bool) -> None:
        self.drains.append(drain)

    def result(self) -> LoadResult:
        return FAILED


def test_ctrl_c_prints_plain_lines_and_no_replacement_character(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    line = StatusLine(quiet=False)
    monkeypatch.undo()
    load = Stopped()
    assert watch(cast(Load, load), 1.0, 1.0, line) == (FAILED, True)
    assert load.drains == [True, False]
    said = capsys.readouterr().err
    assert "\ufffd" not in said
    # The line is cleared first; what clears it is stripped where there is no terminal.
    assert "\rno new requests" in said and "\rstopping the requests" in said


@pytest.mark.parametrize("result", [FAILED, replace(FAILED, ok=1, failed=9)])
def test_no_log_is_named_for_a_url(result: LoadResult) -> None:
    def hint(**how: Any) -> str:
        with pytest.raises(LlmtopError) as caught:
            require_result(result, "", **how)
        return caught.value.hint

    assert "llmtop logs" in hint()
    assert "llmtop logs" not in hint(at_url=True)
    assert "--model" in hint(at_url=True) and "LLMTOP_API_KEY" in hint(at_url=True)
