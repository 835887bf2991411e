"""PURE: the shard state machine. decide(pages, event, now) -> operations and effects; never awaits, reads a clock, draws randomness or
logs."""
