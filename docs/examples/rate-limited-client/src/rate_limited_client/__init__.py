"""One queue before a third-party API, for callers on any number of machines."""
