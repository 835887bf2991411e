"""The Holdfast coordinator: engine, ports, adapters, surfaces and command line."""
