"""Where boxes stand, and when a screen paints."""
