"""The stand-ins of `stac_gitlab.testing`, with details of the real servers that few tests need.

The recorded exchanges in `tests/recorded` hold them to a real SharingHub 0.4.0.
"""

from stand_in.gitlab import RecordedGitLab
from stand_in.hub import Compression, RecordedHub, RecordedProject

__all__ = ["Compression", "RecordedGitLab", "RecordedHub", "RecordedProject"]
