"""The boxes of the dashboard, one module each."""
