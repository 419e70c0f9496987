"""Run ``python -m llmtop``."""

from llmtop.tui.cli import main

if __name__ == "__main__":
    main()
