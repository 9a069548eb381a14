"""The Kubernetes API: one small client, and what mirrors its objects. It decides nothing."""
