"""The Job of a container: how it is described and created."""
