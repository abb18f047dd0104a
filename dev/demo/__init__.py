"""The demo: its bundle and its story."""
