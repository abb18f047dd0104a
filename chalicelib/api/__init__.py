"""The HTTP edge: parse, call one service, render. Chalice is imported here and in ``app.py`` only."""
