"""What the outside talks to: ingress (8080), admin (9070). Surfaces hold no state and know the coordinator by its `Front`."""
