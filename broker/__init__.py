"""The data plane: the only way to a target."""
