"""PURE wire core shared by SDK and coordinator: standard library and protobuf; no await, clock, logger."""
