"""How long a function takes to wake on Kubernetes: from zero and from parked, beside a bare Deployment."""
