"""The sources: each one writes one kind of fact into the store."""
