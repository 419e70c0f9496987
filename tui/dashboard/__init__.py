"""The parts behind the screen: controller, runtime of one screen, engine discovery, tour."""
