"""The parts as pods of a cluster: each fed by what the Kubernetes API has, and by nothing else."""
