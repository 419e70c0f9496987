"""The load generator: workload, schedule, sockets, and the measurement of the answers."""
