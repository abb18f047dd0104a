"""The recorder: no recorder, no session. Frames are accepted into memory, cut into segments, put once, and sealed."""

from broker.recorder.recorder import Recorder
from broker.recorder.recording import Recording

__all__ = ["Recorder", "Recording"]
