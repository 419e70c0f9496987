"""Start, watch, restart, take over and stop engines.

No other room starts or ends engine processes. It receives the adapters and imports none.
"""
