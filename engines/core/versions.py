"""Version strings of engines, such as ``0.8.5.post1`` and ``0.20.1rc2.dev7+g1a2b3c``."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"v?([0-9]{1,6}(?:\.[0-9]{1,6})*)")


def older(version: str, than: str) -> bool:
    """Whether a version is older than another, by release numbers only.

    False if one of them is not a version: "dev" or a commit has no age.
    """
    one, other = _release(version), _release(than)
    return one is not None and other is not None and one < other


def _release(version: str) -> list[int] | None:
    found = _RELEASE.match(version.strip())
    return [int(part) for part in found[1].split(".")] if found else None
