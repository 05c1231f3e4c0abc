"""A worker process: its threads, its heartbeat, and the engine that it runs jobs on."""
