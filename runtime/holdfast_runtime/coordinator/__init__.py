"""The asyncio shell around the engine: shard owners, attempts, channels, timers, membership and routing."""
