"""The official SDKs against a running server, driven through its ingress and admin APIs."""
