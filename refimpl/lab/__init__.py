"""The lab: hosts made out of nothing, as Linux namespaces with a libvirt of their own each, and taken away again."""

from refimpl.lab.config import KeepAlive
from refimpl.lab.errors import LabError
from refimpl.lab.lab import CertificateKind, HostStatus, Lab, create, create_as
from refimpl.lab.leftovers import leftovers
from refimpl.lab.links import Link, LinkState
from refimpl.lab.reaper import LeftBehind, Removal
from refimpl.lab.shelf import LabState, LabSummary, list_labs, reap
from refimpl.lab.wish import HostWish, Wish

__all__ = [
    "CertificateKind",
    "HostStatus",
    "HostWish",
    "KeepAlive",
    "Lab",
    "LabError",
    "LabState",
    "LabSummary",
    "LeftBehind",
    "Link",
    "LinkState",
    "Removal",
    "Wish",
    "create",
    "create_as",
    "leftovers",
    "list_labs",
    "reap",
]
