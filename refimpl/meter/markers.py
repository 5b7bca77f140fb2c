"""Looking for markers in TCP streams as they pass, in bounded memory: also for one that two segments share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from refimpl.meter.frames import Segment

_MOST_FLOWS = 256


class MarkerFinder:
    """Counts markers (name -> bytes, all of one length) in the segments of any number of flows.

    Of each flow it keeps only the end of the segment before: a marker that begins there is found when the next segment
    continues it. Of more than 256 flows those that were quiet for longest are forgotten.
    """

    def __init__(self, markers: Mapping[str, bytes]) -> None:
        self._markers = dict(markers)
        self._overlap = max((len(marker) for marker in markers.values()), default=2) - 1
        self._ends: OrderedDict[tuple[bytes, bytes], tuple[int, bytes]] = OrderedDict()

    def feed(self, segment: Segment) -> dict[str, int]:
        """Take a segment; return how many markers end in it, by name, those that are not there left out."""
        if not segment.payload or not self._markers:
            return {}
        payload = bytes(segment.payload)
        expected, end = self._ends.pop(segment.flow, (segment.sequence, b""))
        if expected != segment.sequence:
            end = b""
        joint = end + payload[: self._overlap]
        found = {
            name: payload.count(marker) + _across(joint, len(end), marker) for name, marker in self._markers.items()
        }
        self._ends[segment.flow] = (segment.sequence + len(payload)) & 0xFFFFFFFF, (end + payload)[-self._overlap :]
        if len(self._ends) > _MOST_FLOWS:
            self._ends.popitem(last=False)
        return {name: count for name, count in found.items() if count}


def _across(joint: bytes, border: int, marker: bytes) -> int:
    at = joint.find(marker)
    return int(0 <= at < border < at + len(marker))
