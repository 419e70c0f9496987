"""The terminal user interface. The command line is ``llmtop.cli``."""
