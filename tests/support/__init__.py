"""Parts that tests and benchmarks share; nothing here is shipped."""
