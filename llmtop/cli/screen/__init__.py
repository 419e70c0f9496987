"""The start of the dashboard and the options that its commands share."""
