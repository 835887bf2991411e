"""The command line as a person uses it: real processes, real ports, real files."""
