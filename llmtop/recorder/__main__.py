"""``python -m llmtop.recorder``: llmtop starts it itself when the first engine runs."""

from __future__ import annotations

import sys

from llmtop.recorder.process import main

if __name__ == "__main__":
    sys.exit(main())
