"""The demonstration: workflows, a server that is killed in the middle, and checks of what came of it."""
