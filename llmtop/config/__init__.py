"""``llmtop.toml``: its tables, its checks and its schema, and the table of keys."""
