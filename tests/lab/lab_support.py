"""What the lab's own tests share: a short state directory, commands in a lab, and a program that builds a lab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refimpl.hosts.channel import HostChannel
from refimpl.hosts.command import run_local
from refimpl.lab import Lab, leftovers, list_labs, reap
from refimpl.lab.host import HostRunner
from refimpl.lab.layout import host_names, plan_hosts
from refimpl.lab.registry import Registry

VM = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices>
<interface type='bridge'><source bridge='vmswitch'/><model type='virtio'/></interface></devices></domain>"""

BUILD = "import sys, pathlib, refimpl.lab as l; l.create(root=pathlib.Path(sys.argv[1]), new_id=lambda: sys.argv[2])"
DOWN = "import sys, pathlib, refimpl.lab as l; l.Lab.open(sys.argv[2], pathlib.Path(sys.argv[1])).down()"


@contextmanager
def state_directory() -> Iterator[Path]:
    """Give a state directory with a short path; at the end every lab in it is taken away, and nothing may be left."""
    root = Path(tempfile.mkdtemp(prefix="rl-"))
    try:
        yield root
    finally:
        labs = [s.id for s in list_labs(root)]
        reap(tuple(labs), root)
        left = [line for lab in labs for line in leftovers(lab, root)]
    assert left == []
    shutil.rmtree(root)


def healthy(lab: Lab) -> None:
    """Assert that every host of a lab is healthy."""
    status = lab.status()
    assert all(host.healthy for host in status), f"hosts that are not healthy: {status}"


def start_vm(lab: Lab, host: str, name: str = "probe") -> None:
    """Start a VM without a disk on a host."""
    path = lab.paths.shared / f"{name}.xml"
    path.write_text(VM.format(name=name))
    run_on(lab, host, "virsh", "-q", "create", str(path))


def run_on(lab: Lab, host: str, *command: str) -> str:
    """Run a command on a host; it has to succeed."""
    from refimpl.hosts.factory import channel_for

    entry = lab.group.host(host)
    assert entry is not None
    done = channel_for(entry).run(command)
    assert done.status == 0, done
    return done.stdout


def put(channel: HostChannel, path: str, data: bytes) -> None:
    """Write a file on a host, readable by its owner only if it is new."""
    done = channel.run(["sh", "-c", 'umask 077; cat > "$1"', "sh", path], stdin=data.decode())
    assert done.status == 0, done


def virsh(lab: Lab, uri: str, host: str | None = None) -> tuple[bool, str]:
    """Ask libvirt at a URI for its host name, from the conductor's place or from a host: (it answered, what it said).

    Its libvirt connection is a fresh one each time.
    """
    question = ("virsh", "-q", "-c", uri, "hostname")
    done = run_local([*lab.conductor_command(), *question] if host is None else lab.shell_command(host, *question))
    return done.status == 0, (done.stdout + done.stderr).strip()


def runner(lab: Lab, host: str) -> HostRunner:
    """Return what starts and finds a host's processes."""
    plan = next(p for p in plan_hosts(lab.id, host_names(2)) if p.name == host)
    return HostRunner(lab.paths, plan, Registry(lab.paths.registry))


def kill_at(stop: str, program: str, root: Path, lab_id: str) -> None:
    """Run a program that builds or removes a lab, and end it with SIGKILL exactly at a stop point."""
    marker = root / "marker"
    marker.unlink(missing_ok=True)
    environment = {**os.environ, "REFIMPL_TEST_STOP": stop, "REFIMPL_TEST_STOP_FILE": str(marker)}
    command = [sys.executable, "-c", program, str(root), lab_id]
    held = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not marker.exists():
        try:
            held.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"the program ended with {held.returncode} before it came to {stop}")
    held.kill()
    held.wait()
    marker.unlink()


def link_names(netns: str) -> set[str]:
    """Return the names of the links in a named network namespace."""
    done = run_local(["ip", "-n", netns, "-j", "link", "show"])
    assert done.status == 0, done
    return {link["ifname"] for link in json.loads(done.stdout)}


@contextmanager
def decoys(root: Path, lab_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """Make things whose names look like the lab's; at the end they must all still be there."""
    netns, directory = f"refimpl-{lab_id}x-h1", root / f"{lab_id}x"
    assert run_local(["ip", "netns", "add", netns]).status == 0
    directory.mkdir()
    environment = {"PATH": os.environ["PATH"], "REFIMPL_LAB": f"{lab_id}x", "XREFIMPL_LAB": lab_id}
    decoy = subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=environment)
    try:
        yield decoy
        assert decoy.poll() is None
        assert link_names(netns) == {"lo"}
        assert directory.is_dir()
    finally:
        decoy.kill()
        decoy.communicate()
        run_local(["ip", "netns", "delete", netns])
