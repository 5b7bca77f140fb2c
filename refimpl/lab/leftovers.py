"""An independent look for what still carries a lab's id; it trusts no registry and removes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from refimpl.hosts import process
from refimpl.hosts.netns import NETNS_DIRECTORY
from refimpl.lab import layout
from refimpl.lab.errors import LabError
from refimpl.lab.layout import LabPaths, state_root
from refimpl.lab.reaper import carriers, mounts_below
from refimpl.lab.tools import run_tool


def leftovers(lab_id: str, root: Path | None = None) -> list[str]:
    """Return everything on this machine that still carries the lab's id, one line each; empty when it is gone.

    Looks at processes' environments, named network namespaces, links and nft tables in every network namespace that a
    name or a process leads to, mounts in every mount namespace that a process leads to, and the lab's directory.
    """
    directory = LabPaths(root or state_root(), lab_id).directory
    found = [f"process {p}" for p in carriers(lab_id) if p != os.getpid()]
    found += [f"network namespace {n}" for n in _netns_names() if n.startswith(layout.netns_name(lab_id, ""))]
    for where in _network_namespaces():
        found += [f"link {link} in {where}" for link in _links(where, lab_id)]
        found += [f"nft table {table} in {where}" for table in _nft_tables(where, lab_id)]
    found += [
        f"mount {point} seen by process {pid}" for pid in _mount_namespaces() for point in _mounts(pid, directory)
    ]
    return found + ([f"directory {directory}"] if directory.exists() else [])


def _netns_names() -> list[str]:
    directory = Path(NETNS_DIRECTORY)
    return sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []


def _network_namespaces() -> list[str]:
    """Return a path to each network namespace once."""
    paths = [f"{NETNS_DIRECTORY}/{n}" for n in _netns_names()]
    paths = [f"/proc/{p}/ns/net" for p in process.all_pids()] + paths
    return list(_unique(paths))


def _mount_namespaces() -> list[int]:
    paths = _unique(f"/proc/{p}/ns/mnt" for p in process.all_pids())
    return [int(path.split("/")[2]) for path in paths]


def _unique(paths: Iterator[str] | list[str]) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            key = (os.stat(path).st_dev, os.stat(path).st_ino)
        except OSError:
            continue
        if key not in seen:
            seen.add(key)
            yield path


def _links(where: str, lab_id: str) -> list[str]:
    links = json.loads(_inside(where, "ip", "-j", "link", "show") or "[]")
    # Switch and ports are `<id>-<network>`, `<id>c<network>` and `<id><number><network>`.
    named, alias = re.compile(f"{lab_id}[-c0-9]"), layout.link_alias(lab_id)
    return [link["ifname"] for link in links if link.get("ifalias") == alias or named.match(link["ifname"])]


def _nft_tables(where: str, lab_id: str) -> list[str]:
    tables = _inside(where, "nft", "list", "tables").splitlines()
    return [line.removeprefix("table ") for line in tables if lab_id in line.replace("-", "_").split("_")]


def _inside(where: str, *command: str) -> str:
    try:
        return run_tool("nsenter", f"--net={where}", "--", *command)
    except LabError:
        # The namespace or its last process went away while we looked, or there is no such program.
        return ""


def _mounts(pid: int, directory: Path) -> list[str]:
    try:
        return mounts_below(directory, Path(f"/proc/{pid}/mountinfo"))
    except OSError:
        return []
