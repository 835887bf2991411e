"""A shopping cart as a virtual object: it is checked out by a saga, and expires when it is left alone."""
