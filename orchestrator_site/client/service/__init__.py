"""The service: its address, a connection that outlives its restarts, and the calls of its API."""
