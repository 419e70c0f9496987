"""What the exporter and alerts need of this machine: what the recorder is to serve, the rules of
``llmtop.toml`` with their variables, a way to post. Not here: metrics, rules, anything that looks
at engines.
"""
