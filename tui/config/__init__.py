"""The operator's file ``llmtop.toml``: its tables, where it is found, which line is wrong."""
