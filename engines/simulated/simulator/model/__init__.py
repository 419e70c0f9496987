"""The virtual GPU, the scheduler and the clock of the simulated engine. No HTTP in here."""
