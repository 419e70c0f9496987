"""The command ``llmtop``, and ``python -m llmtop``: the least that can stand before its imports."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. A Ctrl+C while it is still being imported ends it in one line too."""
    try:
        from llmtop.tui.cli import main as run
    except KeyboardInterrupt:
        sys.exit("llmtop: stopped")
    run()


if __name__ == "__main__":
    main()
