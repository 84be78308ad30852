"""Crash tests use the end-to-end tests' daemon."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import pytest  # noqa: E402

from daemon import ROOT, Postern  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for daemon in Postern.live:
            report.sections.append((f"log of {daemon.dir}", "\n".join(daemon.log.lines[-25:])))


def pytest_collection_modifyitems(config, items):
    keep, drop = [], []
    for item in items:
        (drop if item.get_closest_marker("ordinary" if ROOT else "root") else keep).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
    items[:] = keep
