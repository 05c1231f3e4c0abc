"""Outgoing HTTP: one client, and the rules on which addresses it reaches."""
