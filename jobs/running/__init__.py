"""A worker process: claims jobs, runs them on its engine, and takes over those of dead workers."""
