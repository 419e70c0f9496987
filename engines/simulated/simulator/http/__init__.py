"""The interfaces of the simulated engine: API, metrics page, live socket, deliberate faults."""
