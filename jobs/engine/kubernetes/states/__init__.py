"""What the cluster says about a Job and its pod, and what it means. No I/O."""
