"""Delivering events: streams, the queue of each destination, attempts and their results."""
