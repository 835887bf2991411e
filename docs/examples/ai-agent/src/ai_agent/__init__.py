"""ai-agent: a conversation with a model that may use tools, durable on Holdfast."""
