"""Configuration, wiring and the command line: the only layer that knows every other."""
