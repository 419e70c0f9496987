"""Opens the dashboard, and the options shared by the commands that open it."""
