"""Ends jobs that write too much to their engine's disk (docs/adr/0030-what-jobs-write-to-the-disk.md)."""

from jobs.worker.disk.disk_watch import DiskWatch

__all__ = ["DiskWatch"]
