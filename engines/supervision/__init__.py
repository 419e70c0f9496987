"""Start, watch, restart, adopt and stop engines.

The only owner of engine processes. It is given the adapters and imports none.
"""
