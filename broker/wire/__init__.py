"""Protocol machines: bytes in, events out; no I/O, no clock, nothing of ours imported."""
