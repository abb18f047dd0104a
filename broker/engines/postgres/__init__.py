"""PostgreSQL: what its statements mean, and the relay."""
