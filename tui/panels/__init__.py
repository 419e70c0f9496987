"""Panels: what the store says, as rows. They read it and draw; they ask for nothing."""
