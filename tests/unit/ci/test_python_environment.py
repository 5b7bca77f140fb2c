"""When ci/setup makes the Python environment anew, with what, and with which interpreter; no pip runs here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.ci.machine import ROOT

# An interpreter that makes an environment whose pip writes down what it was asked for, and fails when told to.
INTERPRETER = """#!/bin/sh
case "$*" in
-V) echo Python 3.99.0 ;;
"-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
"-m pip "*) echo "$*" >>"$LOG"; exit "$PIP_STATUS" ;;
esac
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        (folder / "pyproject.toml").write_text("[project]\n")
        self.tool("python", INTERPRETER)
        self.libvirt("11.3.0")

    def tool(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def libvirt(self, version: str) -> None:
        self.tool("pkg-config", f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 1\n")

    def make(self, *, pip_status: int = 0) -> tuple[int, list[str]]:
        """Run make_environment; its exit code and what pip was asked for."""
        self.log.write_text("")
        script = f". {ROOT}/ci/lib.sh; . {ROOT}/ci/python.sh; root={self.folder}; venv=$root/.venv; make_environment"
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "REFIMPL_PYTHON": f"{self.folder}/bin/python",
            "LOG": str(self.log),
            "PIP_STATUS": str(pip_status),
        }
        done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, check=False, timeout=60)
        return done.returncode, self.log.read_text().splitlines()


def test_it_is_made_once(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.make() == (0, ["-m pip install -q -e .[lab,report,test,libvirt] libvirt-python<=11.3.0"])
    assert checkout.make() == (0, [])


@pytest.mark.parametrize("change", ["metadata", "libvirt", "interpreter"])
def test_it_is_made_anew_when_what_it_was_made_from_changes(tmp_path: Path, change: str) -> None:
    checkout = Checkout(tmp_path)
    checkout.make()
    if change == "metadata":
        (tmp_path / "pyproject.toml").write_text("[project]\nname='x'\n")
    elif change == "libvirt":
        checkout.libvirt("11.4.0")
    else:
        checkout.tool("python", INTERPRETER.replace("3.99.0", "3.99.1"))
    status, asked = checkout.make()
    assert (status, len(asked)) == (0, 1)
    assert checkout.make() == (0, [])


def test_where_there_is_no_libvirt_its_binding_is_left_out(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.libvirt("")
    assert checkout.make() == (0, ["-m pip install -q -e .[lab,report,test]"])


def test_a_failed_attempt_is_not_taken_for_an_environment(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.make(pip_status=1)[0] == 1
    status, asked = checkout.make()
    assert (status, len(asked)) == (0, 1)


def test_an_interpreter_that_was_asked_for_and_will_not_do_is_an_error(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.tool("python", "#!/bin/sh\nexit 1\n")
    assert checkout.make() == (8, [])


def test_the_running_interpreter_is_suitable_and_one_without_headers_only_where_none_are_needed(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(
        f"#!/bin/sh\nshift\ncode=$1; shift\nexec {sys.executable} -c "
        f'"import sysconfig; sysconfig.get_path = lambda name: \'/nowhere\'\n$code" "$@"\n'
    )
    bare.chmod(0o755)

    def suitable(python: str, headers: str) -> bool:
        script = f'. {ROOT}/ci/python.sh; suitable "$1" "$2"'
        return subprocess.run(["bash", "-c", script, "x", python, headers], check=False).returncode == 0

    assert suitable(sys.executable, "no")
    assert suitable(str(bare), "no")
    assert not suitable(str(bare), "yes")
