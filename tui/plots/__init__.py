"""Drawings and forms of the experiment screens and of the screens about an engine's inside."""
