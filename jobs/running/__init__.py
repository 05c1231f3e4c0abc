"""The steps of one job: claimed, its container created, started and watched, its files moved, its end recorded."""
