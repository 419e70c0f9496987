"""What panels are drawn with: rows, charts, bars, and the widget that shows them."""
