"""The load: when to send, what to send, sending it, and what came back. No screen, no engine in here."""
