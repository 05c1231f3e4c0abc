"""The labels by which the service finds its containers and networks on an engine that it may share with others."""

INSTANCE_LABEL = "orchestrator.instance"
UUID_LABEL = "orchestrator.job"
NODE_LABEL = "orchestrator.node"
SANDBOX_LABEL = "orchestrator.sandbox"  # of a sandbox, and of the containers that have joined it
NETWORK_LABEL = "orchestrator.network"  # of a sandbox, and of nothing else
