"""The numbers of "accepted and durable": how far a connection may run ahead of its record, and for how long.

Source: architecture, "Accepted and durable": 2 s or 8 MiB per connection, up to 8 segments uploading at once.
"""

from __future__ import annotations

from typing import Final

from chalicelib.domain.recording import UPLOADS_AT_ONCE as UPLOADS_AT_ONCE

WINDOW_BYTES: Final = 8 * 1024 * 1024  # unacknowledged; past it the broker stops reading from both sides
WINDOW_S: Final = 2.0  # age of the oldest unacknowledged frame; past it the same
# Twice the window: one message that was being read when the window closed still fits, and memory stays bounded
# whatever a driver forgets. Past it the recording fails, so nothing runs unrecorded.
HARD_BYTES: Final = 2 * WINDOW_BYTES
SEGMENT_BYTES: Final = 256 * 1024  # raw: at 2 Mbit/s one PutObject a second, and no more than that to lose
# While others are on their way: the window by the uploads at once, so that a whole window, and not 2 MiB, may go in the
# time of one PutObject; and a quarter of the objects.
BUSY_SEGMENT_BYTES: Final = WINDOW_BYTES // UPLOADS_AT_ONCE
# Half the window: a frame waits 1 s at most for company and leaves 1 s for its PutObject, so that an ordinary upload
# (40 ms in benches) never makes a quiet connection look behind.
FLUSH_AFTER_S: Final = 1.0
# A store that refuses for this long is down, not slow: the same bound as for the revocation feed.
RETRY_FOR_S: Final = 30.0
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 2.0  # no more than the window between two tries: a bucket that is back is seen at once
OPEN_WITHIN_S: Final = 10.0  # for segment 0: a client's own connect timeout is rarely shorter
CLOSE_WITHIN_S: Final = 30.0  # for the last segment: as long as a retry may take
SPOOL_EVERY_S: Final = 0.05  # what a killed process loses of its spool; an fsync of a good disk takes 1 to 5 ms
