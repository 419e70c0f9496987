"""The command ``llmtop``, and ``python -m llmtop``: the least that can stand before its imports."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. A Ctrl+C while it is still being imported ends it in one line too."""
    try:
        from llmtop.cli.main import main as run
    except KeyboardInterrupt:
        print("llmtop: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
