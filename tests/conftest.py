"""What all tests share: rules and error ids named by markers, and the listing of rules without a test."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from refimpl.model import errors
from tests import outcomes

RULES = tomllib.loads((Path(__file__).parent / "rules.toml").read_text("utf-8"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rules", action="store_true", help="list rules with their tests, and rules without one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("rule"):
            unknown = set(mark.args) - set(RULES)
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: no rule {sorted(unknown)} in tests/rules.toml")


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.getoption("--rules"):
        return
    proofs: dict[str, set[str]] = defaultdict(set)
    for item in session.items:
        for mark in item.iter_markers("rule"):
            for rule in mark.args:
                proofs[rule].add(item.nodeid.split("[")[0])
    for rule, row in RULES.items():
        state = f"{len(proofs[rule])} tests" if proofs[rule] else f"no test: {row.get('needs', 'missing')}"
        print(f"{rule:>4}  {state:<44} {row['text']}")
        for test in sorted(proofs[rule]):
            print(f"        {test}")
    bare = [rule for rule in RULES if not proofs[rule]]
    print(f"{len(RULES) - len(bare)} rules with a test, {len(bare)} without: {', '.join(bare) or 'none'}")
    session.items.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    outcomes.remember(item, report)
    return report


@pytest.fixture(autouse=True)
def _error_marks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test marked `error("id")` that passes must really have met that error."""
    wanted = {id for mark in request.node.iter_markers("error") for id in mark.args}
    if not wanted:
        yield
        return
    met: set[str] = set()
    genuine = errors.entry

    def entry(id: str) -> errors.ErrorEntry:
        met.add(id)
        return genuine(id)

    monkeypatch.setattr(errors, "entry", entry)
    yield
    # One that failed has not come to where it would meet it; one that was skipped neither.
    missed = sorted(wanted - met) if outcomes.passed(request.node) else []
    assert not missed, f"the test is marked with errors that it did not meet: {missed}"
