"""What is measured, against what, in one run: ratios against a peer, never a timed test."""
