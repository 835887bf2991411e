"""Sample services, written with the SDK and deployed by the template."""
