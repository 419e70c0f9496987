"""The load generator: what is sent and when, over which sockets, and what the answers show."""
