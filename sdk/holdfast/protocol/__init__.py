"""PURE wire core shared by SDK and coordinator: standard library and protobuf only; no await, clock, environment or logger."""
