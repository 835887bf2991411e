"""What the outside talks to: ingress (8080) and admin (9070). No state here; the coordinator is its `Front`."""
