"""How the parts of a test ended, for what is torn down after it."""

from __future__ import annotations

import pytest

_REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


def remember(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep the report of a part of a test: `setup`, `call` or `teardown`."""
    item.stash.setdefault(_REPORTS, {})[report.when] = report


def passed(item: pytest.Item) -> bool:
    """Whether the test itself has run and passed."""
    report = item.stash.get(_REPORTS, {}).get("call")
    return report is not None and report.passed
