"""What containers write to their engine's disk: limited by its storage driver where it can do that, and measured.

See docs/adr/0030-what-jobs-write-to-the-disk.md.
"""

from jobs.engine.docker.disk.disk_of_engine import DiskOfEngine
from jobs.engine.docker.disk.image_volumes import ImageVolumes
from jobs.engine.docker.disk.measured_use import MeasuredUse
from jobs.engine.docker.disk.storage_limit import StorageLimit

__all__ = ["DiskOfEngine", "ImageVolumes", "MeasuredUse", "StorageLimit"]
