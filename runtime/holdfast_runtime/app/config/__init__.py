"""The settings: declared once, read from file, environment and command line."""
