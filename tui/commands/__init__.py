"""The commands of the screen: the ``Control`` protocol and its values."""
