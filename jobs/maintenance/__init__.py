"""Periodic duties that find by polling what no message reported: dead workers, lost nodes, leftovers, old jobs."""
