"""What containers have used: kept by their control groups or, where these cannot be read, as the engine's statistics say.

See docs/adr/0020-usage-from-parent-control-groups.md.
"""

from jobs.engine.docker.usage.kept_usage import KeptUsage
from jobs.engine.docker.usage.statistics_streams import StatisticsStreams

__all__ = ["KeptUsage", "StatisticsStreams"]
