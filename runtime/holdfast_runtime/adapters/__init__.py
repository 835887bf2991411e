"""Implementations of the ports. Each module is one outside thing; only `system` touches the real clock and entropy."""
