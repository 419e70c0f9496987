"""What the simulated engine sends and receives: API, metrics page, option socket, faults."""
