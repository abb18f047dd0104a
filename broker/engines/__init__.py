"""One package per protocol; no policy inside, and none knows another."""
