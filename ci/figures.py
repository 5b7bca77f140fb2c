"""What ci/test prints beside its results: what this machine can do, and the totals of all JUnit files.

The machine's figures are those that the demo prints too. They are never asserted: beside the times they tell a slow
machine from a slow change.
"""

import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from refimpl.app.machine import machine


def kvm() -> str:
    """Whether the KVM device opens. That is no proof that a guest runs on it."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"no KVM ({error.strerror})"
    return "KVM device opens (whether guests run on it, the lab finds out)"


def totals(folder: Path) -> tuple[int, int, int]:
    """Passed, failed (errors too) and skipped tests over all JUnit files in the folder."""
    passed = failed = skipped = 0
    for file in sorted(folder.glob("*.xml")):
        for suite in ET.parse(file).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            out = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - out
            failed += bad
            skipped += out
    return passed, failed, skipped


def main(arguments: list[str]) -> int:
    """Print one of the two; no test at all, or a failed one, is a failure."""
    if arguments == ["machine"]:
        print(f"{machine().text}, {kvm()}")
        return 0
    passed, failed, skipped = totals(Path(arguments[1]))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
