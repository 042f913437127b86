"""How Hypothesis runs here: the same examples each time, unless another profile is asked for.

`pytest tests/properties --hypothesis-profile thorough` looks further, `make fuzz` at more messages.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow]  # a database per example
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=35, suppress_health_check=_SLOW
)
settings.register_profile("thorough", deadline=None, max_examples=1_000, suppress_health_check=_SLOW)
settings.register_profile("fuzz", deadline=None, database=None, suppress_health_check=list(HealthCheck))
if settings.get_current_profile_name() not in {"thorough", "fuzz"}:
    settings.load_profile("ci")
