"""Commands that predict an engine, search its settings, or keep a service level objective."""
