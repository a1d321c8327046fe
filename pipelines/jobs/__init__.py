"""Batch jobs: where in one this process stands, and how one is handed to Slurm, to Kubernetes or to this machine."""
