"""What a Kubernetes cluster that a command starts would share with the rest of the machine, or leave there."""
