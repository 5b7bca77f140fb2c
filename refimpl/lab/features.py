"""What the kernel of this machine must be able to do for a lab, each tried in namespaces that end with the try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refimpl.hosts.command import run_local
from refimpl.lab.requirements import MODULE, PACKAGES, SETUP, Finding
from refimpl.lab.tools import lab_environment

_TRY_S = 20.0
_OTHER_KERNEL = "use a kernel that has it"
_RIGHTS = "run as root, and in a container with the rights for it (--privileged)"


def features() -> Iterator[Finding]:
    """Yield a finding for every feature; all of them need root."""
    spaces = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork"]
    yield _tried("namespaces", [*spaces, "true"], "network, mount, UTS and PID namespaces can be made", _RIGHTS)
    overlay = ["mount", "-t", "overlay", "-o", "ro,lowerdir=/etc:/usr", "overlay", "/run"]
    yield _tried("mounts", ["unshare", "--mount", *overlay], "an overlay can be mounted", _RIGHTS)
    yield _link("bridge", "type", "bridge")
    yield _link("veth", "type", "veth", "peer", "name", "other")
    shaper = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "64kb", "latency", "50ms"]
    yield _tried("link shaping", _in_network(*shaper), "links can be slowed down", _OTHER_KERNEL, f"{MODULE}:sch_tbf")
    table = _in_network("nft", "add", "table", "inet", "t")
    yield _tried("packet filter", table, "packets can be filtered", SETUP, PACKAGES)
    found = ipv6()
    # A lab whose file does not ask for IPv6 is built without.
    yield Finding(found.name, True, found.text, found.mend and f"{found.mend}; until then labs are IPv4 only")


def ipv6() -> Finding:
    """Give an IPv6 address to the loopback of a network namespace."""
    command = _in_network("ip", "-6", "address", "add", "fd00:90:3::1/64", "dev", "lo")
    return _tried("IPv6", command, "the kernel has it", "boot the kernel with IPv6 (ipv6.disable=0)")


def _link(name: str, *kind: str) -> Finding:
    command = _in_network("ip", "link", "add", "name", "tried", *kind)
    return _tried(name, command, "the kernel has such links", _OTHER_KERNEL, f"{MODULE}:{name}")


def _in_network(*command: str) -> list[str]:
    return ["unshare", "--net", *command]


def _tried(name: str, command: Sequence[str], good: str, mend: str, repair: str = "") -> Finding:
    try:
        done = run_local(command, timeout_s=_TRY_S, environment=lab_environment())
    except OSError as failure:
        return Finding(name, False, str(failure), SETUP, PACKAGES)
    if done.status == 0:
        return Finding(name, True, good)
    said = done.stderr.strip().splitlines() or [f"{command[-1]} ended with {done.status}"]
    return Finding(name, False, said[-1], mend, repair)
