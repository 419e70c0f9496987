"""The screen, and only the screen."""
