"""The terminal: keyboard bytes, shutdown, colours, pictures."""
