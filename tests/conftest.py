"""What holds for every test.

Hypothesis counts a slow example as a failure, by the wall clock: on a machine that does other work too, that says
nothing about the code. What must end in time is bounded by pytest's own timeout; what must be fast is measured in
``bench``.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
