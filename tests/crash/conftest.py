"""Crash tests use the end-to-end tests' daemon."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from daemon import ROOT  # noqa: E402


def pytest_collection_modifyitems(config, items):
    keep, drop = [], []
    for item in items:
        (drop if item.get_closest_marker("ordinary" if ROOT else "root") else keep).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
    items[:] = keep
