"""The configuration bundle: load, validate, digest; typed results."""
