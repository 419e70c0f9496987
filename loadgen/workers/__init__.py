"""Worker processes that schedule and send requests, and the load that controls them.

``workload`` decides the content of requests; ``client`` has the sockets.
"""
