"""Engines: what they are, how they are started, read, tuned and stopped. No screen in here."""
