"""Text from engines, logs and other processes, made safe to show: no controls, no secrets, bounded.

What runs inside an engine has the standard library alone, so ``llmtop_live`` bounds its own words.
"""

from __future__ import annotations

from llmtop.engines.core.printable import printable
from llmtop.engines.host.redaction import conceal

LINE_CHARS = 4000


def clean(text: str) -> str:
    """One line that is safe on any terminal, of at most 4,000 characters.

    Control characters and escapes are removed (``core.printable``). The value of what is named like
    a secret is hidden: engines print their own arguments. A cut is noted at the end.
    """
    beyond = len(text) - LINE_CHARS
    text = conceal(printable(text[:LINE_CHARS]))
    return f"{text} … ({beyond:,} more)" if beyond > 0 else text


def brief(text: str, limit: int) -> str:
    """``clean``, then the first ``limit`` characters without a note and without outer spaces."""
    return clean(text)[:limit].strip()
