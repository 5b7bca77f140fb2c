"""The lab: hosts made out of nothing, as Linux namespaces with a libvirt of their own each, and taken away again."""

from refimpl.lab.config import KeepAlive
from refimpl.lab.errors import LabError
from refimpl.lab.lab import CertificateKind, HostStatus, Lab, create
from refimpl.lab.leftovers import leftovers
from refimpl.lab.reaper import LeftBehind, Removal
from refimpl.lab.shelf import LabState, LabSummary, list_labs, reap

__all__ = [
    "CertificateKind",
    "HostStatus",
    "KeepAlive",
    "Lab",
    "LabError",
    "LabState",
    "LabSummary",
    "LeftBehind",
    "Removal",
    "create",
    "leftovers",
    "list_labs",
    "reap",
]
