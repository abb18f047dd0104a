"""The story, one module a chapter. Each says what it observed, and hands on what later ones need."""
