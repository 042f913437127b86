"""Programs that some tests need: their paths, and the marks of tests that are skipped without one (`make tools`)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "build" / "tools"
MISSING = "missing tool: "
"""Prefix of the reason of such a skip; with NEED_TOOLS set such a skip fails the run."""


def find(*names: str) -> str | None:
    """The path of the first of these programs that exists."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(TOOLS)])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


CHROMIUM = find("chromium", "chromium-browser", "google-chrome")
PROMTOOL = find("promtool")
PROMETHEUS = find("prometheus")

chromium = pytest.mark.skipif(CHROMIUM is None, reason=f"{MISSING}chromium; as root: make tools")
prometheus = pytest.mark.skipif(PROMETHEUS is None, reason=f"{MISSING}prometheus; as root: make tools")
promtool = pytest.mark.skipif(PROMTOOL is None, reason=f"{MISSING}promtool; as root: make tools")
