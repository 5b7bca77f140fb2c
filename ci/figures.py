"""What ci/test prints beside its results: what this machine can do, and the totals of all JUnit files.

The calibration is never asserted. Beside the times it tells a slow machine from a slow change.
"""

import os
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

LOOPS = 2_000_000


def loop_ms() -> int:
    """Time of a fixed loop in this interpreter, best of three, in milliseconds."""
    best = float("inf")
    for _ in range(3):
        started, total = time.perf_counter(), 0
        for number in range(LOOPS):
            total += number & 7
        best = min(best, time.perf_counter() - started)
    return round(best * 1000)


def kvm() -> str:
    """Whether the KVM device opens. That is no proof that a guest runs on it."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"no KVM ({error.strerror})"
    return "KVM device opens (whether guests run on it, the lab finds out)"


def machine() -> str:
    """One line: cores, memory, speed of a fixed loop, KVM."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    version = ".".join(map(str, sys.version_info[:3]))
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {memory_mib} MiB, Python {version} loop {loop_ms()} ms, {kvm()}"


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
        print(machine())
        return 0
    passed, failed, skipped = totals(Path(arguments[1]))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
