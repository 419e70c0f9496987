"""What the screen may ask for: the ``Control`` protocol and the values that it takes."""
