"""Internal data of a running engine: steps, latencies, requests, aborts (protocol 2).

The client side of docs/reference/live-socket.md. Causes and forecasts do not belong here.
"""
