"""What a running engine shows of its inside: steps, latencies, requests, aborts (protocol 2).

The client's half of docs/reference/live-socket.md. Causes and forecasts do not belong here.
"""
