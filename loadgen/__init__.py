"""The load: when to send, what to send, sending it, what came back. No screen, no engine."""
