"""The engine that runs each job as a `batch/v1` Job of a Kubernetes cluster."""
