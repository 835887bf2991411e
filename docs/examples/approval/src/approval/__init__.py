"""A request that waits for a person: days, reminders, escalation, a deadline."""
