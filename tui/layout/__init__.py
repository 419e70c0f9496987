"""The positions of the boxes, and the times at which a screen paints."""
