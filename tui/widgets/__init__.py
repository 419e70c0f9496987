"""Drawing in cells: rows, frames, axes, bars, charts. Knows no engine."""
