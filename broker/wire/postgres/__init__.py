"""PostgreSQL's frontend/backend protocol 3: machines over bytes. No I/O, no clock, nothing of ours imported."""
