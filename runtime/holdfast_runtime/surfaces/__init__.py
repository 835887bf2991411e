"""What the outside talks to: ingress (8080), admin (9070). No state here; the coordinator is a `Front`."""
