"""``python -m llmtop.recorder``: started by llmtop itself, with the first engine."""

from __future__ import annotations

import sys

from llmtop.recorder.process import main

if __name__ == "__main__":
    sys.exit(main())
