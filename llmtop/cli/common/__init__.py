"""What several commands need: parameter types, output, the configuration file."""
