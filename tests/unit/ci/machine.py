"""A machine made of files, on which ci/setup decides and installs without touching the real one.

Its root is a folder (`REFIMPL_SETUP_ROOT`), and apt-get, apt-cache, dpkg-query and id are small scripts that answer
from files in that folder and keep a log. The fake installation asks policy-rc.d, as dpkg's scripts do, and logs what it
says.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SETUP = ROOT / "ci" / "setup"
POLICY = "usr/sbin/policy-rc.d"
SOURCE = "etc/apt/sources.list.d/refimpl-backports.sources"
RECORD = "var/lib/refimpl/setup.list"
WANTS = "etc/systemd/system/multi-user.target.wants"

SCRIPTS = {
    "id": "cat $base/uid",
    "dpkg-query": """
        while read -r state name version; do
            for pattern in "$@"; do case $name in $pattern) echo "$state $name $version"; break ;; esac; done
        done <$base/dpkg""",
    "apt-cache": 'grep "^ *$2 |" $base/madison',
    "apt-get": """
        echo "$*" >>$base/apt.log
        case " $* " in
        *" indextargets "*RELEASE*REPO_URI*) sed 's/^/Packages /' $base/targets ;;
        *" indextargets "*) cut -d' ' -f1 $base/targets ;;
        *" --simulate "*) cat $base/simulation ;;
        *" install "*) $base/usr/sbin/policy-rc.d; echo "policy $?" >>$base/apt.log; . $base/install ;;
        esac""",
}

TARGETS = {"debian-12": "bookworm", "debian-13": "trixie", "ubuntu-24.04": "noble"}


class Machine:
    """What ci/setup would find, and what it left."""

    def __init__(self, folder: Path, system: str = "debian-12", *, uid: int = 0) -> None:
        self.base = folder
        self.bin = folder / "fake-bin"
        name, version = system.split("-")
        self.write("etc/os-release", f'ID={name}\nVERSION_ID="{version}"\n')
        self.write("uid", f"{uid}\n")
        self.write("var/lib/apt/lists/mirror.example_Packages", "")
        self.write("targets", f"{TARGETS.get(system, 'other')} http://mirror.example/debian/\n")
        for file in ("dpkg", "madison", "simulation", "install", "apt.log"):
            self.write(file, "")
        for directory in (POLICY, SOURCE, WANTS + "/x"):
            (folder / directory).parent.mkdir(parents=True, exist_ok=True)
        for script, body in SCRIPTS.items():
            self.write(f"fake-bin/{script}", f"#!/bin/sh\nbase='{folder}'\n{body}\n").chmod(0o755)

    def write(self, path: str, text: str) -> Path:
        """Put a file there and return its path."""
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str:
        """The text of a file there."""
        return (self.base / path).read_text()

    def has(self, packages: Mapping[str, str]) -> None:
        """These packages are installed, with these versions."""
        self.write("dpkg", "".join(f"installed {name} {version}\n" for name, version in packages.items()))

    def runs(self, names: Iterable[str]) -> None:
        """These processes run."""
        for number, name in enumerate(names, start=100):
            self.write(f"proc/{number}/comm", f"{name}\n")

    def setup(
        self, *arguments: str, scope: str = "--packages-only", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ci/setup here, with no terminal; output and messages come together."""
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.base),
            "REFIMPL_SETUP_ROOT": str(self.base),
            **variables,
        }
        return subprocess.run(
            [str(SETUP), scope, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
            # Python ignores what its parent ignored; the script must see an interrupt as it would from a terminal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )

    def plan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What ci/setup would do."""
        return self.setup("--plan", *arguments)


def everything(system: str) -> dict[str, str]:
    """All packages that the table wants for a system, in versions that will do."""
    name, version = system.split("-")
    script = f'. {ROOT}/ci/packages.sh; describe_system {name} {version}; printf "%s\\n" "${{packages[@]}}"'
    listed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    return {package: "1:10.0.2" if package.startswith("qemu-") else "11.3.0-2" for package in listed}
