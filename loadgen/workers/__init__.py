"""Worker processes that schedule and send requests, and the load that runs and steers them.

What is sent is decided in ``workload``; sockets are in ``client``.
"""
