"""Option values that an engine chose at its start, from its log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmtop.engines.core.options import OptionSpec, OptionValue
from llmtop.engines.logs.startup import start_lines
from llmtop.engines.tuning.argv_parser import read_value

READ_CHARS = 256 * 2**10  # of a start's log: every command waits for this read
_SWITCH = {"True": True, "False": False, "enabled": True, "disabled": False}


def find_effective(
    lines: Iterable[str], patterns: Sequence[re.Pattern[str]], options: Sequence[OptionSpec]
) -> dict[str, OptionValue]:
    """Launch values by option name, out of the log lines of one start.

    patterns: an adapter's; their named groups are option names. The first line with an option
    counts: several processes report the same, and later lines may quote users' text. Values of a
    wrong type are skipped.
    """
    kinds = {spec.name: spec.kind for spec in options}
    found: dict[str, OptionValue] = {}
    for line in lines:
        for pattern in patterns:
            match = pattern.search(line)
            for name, text in match.groupdict().items() if match is not None else ():
                kind = kinds.get(name)
                if kind is None or text is None or name in found:
                    continue
                value = _SWITCH.get(text) if kind is bool else read_value(text, kind)
                if value is not None:
                    found[name] = value
    return found


def read_effective(
    log: Path,
    started_at: float,
    patterns: Sequence[re.Pattern[str]],
    options: Sequence[OptionSpec],
) -> Mapping[str, OptionValue]:
    """The option values that the start at ``started_at`` (unix seconds) reported in its log.

    {} when the log does not reach back that far, or has no report. Reads at most READ_CHARS.
    """
    if not patterns:
        return {}
    return find_effective(start_lines(log, started_at, READ_CHARS), patterns, options)
