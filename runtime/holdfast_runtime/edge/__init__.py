"""The serverless front door: a Chalice application on Lambda that takes requests while no coordinator is awake."""
