"""How many examples hypothesis tries: few in `make test`, many with ``pytest --hypothesis-profile thorough``."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=250, deadline=None)
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile("quick")
