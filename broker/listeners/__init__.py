"""Sockets, TLS and the limits before authentication."""
