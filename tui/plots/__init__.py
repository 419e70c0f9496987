"""The drawings of the saturation and the compare screen."""
