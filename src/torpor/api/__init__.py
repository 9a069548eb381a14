"""``/api/v1``: what people and tools ask of a running platform, and the client that asks."""
