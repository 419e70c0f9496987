"""Makes text of engines, logs and other processes safe: no controls, no secrets, bounded length.

Code inside an engine has only the standard library, so ``llmtop_live`` bounds its own texts.
"""

from __future__ import annotations

from llmtop.engines.host.redaction import conceal
from llmtop.printable import printable

LINE_CHARS = 4000


def clean(text: str) -> str:
    """One line that is safe on any terminal, of at most 4,000 characters.

    Control characters and escapes are removed (``core.printable``). Values of secret names are
    hidden: engines print their own arguments. A note at the end marks a truncated line.
    """
    beyond = len(text) - LINE_CHARS
    text = conceal(printable(text[:LINE_CHARS]))
    return f"{text} … ({beyond:,} more)" if beyond > 0 else text


def brief(text: str, limit: int) -> str:
    """``clean``, then the first ``limit`` characters, without a note and outer spaces."""
    return clean(text)[:limit].strip()
