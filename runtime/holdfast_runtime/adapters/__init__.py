"""Implementations of the ports, one outside thing each; only `system` touches the real clock and entropy."""
