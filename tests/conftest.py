"""What all tests share: rules and error ids named by markers, and the listing of rules without a test."""

from __future__ import annotations

import os
import tomllib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from refimpl.model import errors
from tests import outcomes, traced

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


@pytest.fixture(autouse=True)
def _moves_of_the_model(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every move that a test has the real engine make could have happened in the model of the hand-over."""
    yield
    refused = traced.TRACES.look(_directories(request))
    if refused:
        raise traced.Refused("\n".join(refused))


@pytest.fixture(scope="session", autouse=True)
def _last_moves_of_the_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ran to the last, or was put away with something that many tests share."""
    yield
    refused = traced.TRACES.look(_shared_directories(tmp_path_factory), last=True)
    if refused:
        raise traced.Refused("\n".join(refused))


def _directories(request: pytest.FixtureRequest) -> list[Path]:
    """Return the directories of a test, and those that many tests share."""
    shared = _shared_directories(request.getfixturevalue("tmp_path_factory"))
    own = request.node.funcargs.get("tmp_path")
    return [*shared, own] if own is not None else shared


def _shared_directories(factory: pytest.TempPathFactory) -> list[Path]:
    """Return the temporary directories that are no single test's own."""
    with os.scandir(factory.getbasetemp()) as found:
        names = [entry for entry in found if not entry.name.startswith(("test_", "popen-"))]
        return [Path(entry.path) for entry in names if entry.is_dir(follow_symlinks=False)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker has counted to the process that prints it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["traces"] = {str(name): count for name, count in traced.TRACES.counts.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    traced.TRACES.counts.update(Counter(getattr(node, "workeroutput", {}).get("traces", {})))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = traced.summary(traced.TRACES.counts)
    if lines:
        terminalreporter.section("moves and the model")
        for line in lines:
            terminalreporter.line(line)
