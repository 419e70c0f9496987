"""What is shown of foreign text."""

from __future__ import annotations

import pytest

from llmtop.engines.core.live_protocol import TEXT_LIMIT, text_of
from llmtop.engines.host.safe_text import brief, clean


@pytest.mark.parametrize("show", [clean, text_of], ids=["logs", "options"])
@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\nb\x00c", "a\ufffdb\ufffdc"),
        ("abc\u202edef\u200b\u2066", "abc\ufffddef\ufffd\ufffd"),
        ("模型　名", "模型　名"),
    ],
)
def test_one_rule_for_text_of_logs_and_of_option_sockets(
    show: object, hostile: str, shown: str
) -> None:
    assert callable(show) and show(hostile) == shown


def test_every_cut_holds() -> None:
    assert len(text_of("\t" * 5000)) == TEXT_LIMIT
    assert clean("x" * 4001).endswith("x … (1 more)")
    assert brief("serve --api-key abc123 --port 1", 26) == "serve --api-key [hidden] -"
