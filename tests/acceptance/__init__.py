"""The whole service, with its real processes, as a client uses it."""
