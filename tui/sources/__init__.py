"""Facts on their way up: each source writes one kind of fact into the store."""
