"""The commands of the screen: the ``Control`` base class and its values."""
