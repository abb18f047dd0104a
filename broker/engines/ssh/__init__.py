"""SSH: what its clients say, what it means, and what comes back."""
