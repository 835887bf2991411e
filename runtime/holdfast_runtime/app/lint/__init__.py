"""`holdfast lint`: what in handlers replay cannot repeat."""
