"""How Hypothesis runs here: the same examples each time, unless another profile is asked for.

`pytest tests/properties --hypothesis-profile thorough` looks further.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow]  # a database per example
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=35, suppress_health_check=_SLOW
)
settings.register_profile("thorough", deadline=None, max_examples=1_000, suppress_health_check=_SLOW)
if settings.get_current_profile_name() != "thorough":
    settings.load_profile("ci")
