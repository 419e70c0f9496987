"""The edge: command line and screen. Everything that a person reads is worded in here."""
