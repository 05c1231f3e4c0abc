"""A Docker engine of our own: start and stop dockerd, and leave nothing of it on the machine."""
