"""The charts of the dashboard: what each of them shows, and how a chart is drawn."""
