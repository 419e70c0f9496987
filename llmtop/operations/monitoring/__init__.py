"""Configuration of the exporter and of alerts: what the recorder serves, the alert rules of
``llmtop.toml`` with their variables, and the client for webhooks. Metrics, the evaluation of rules
and the reading of engines are elsewhere.
"""
