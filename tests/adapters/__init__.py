"""The adapters against real peers: servers on loopback, official SDKs, Lambda runtime processes."""
