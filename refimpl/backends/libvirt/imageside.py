"""What runs on a host to make and to remove the files of disks that move: it answers a question a line.

It is sent to the host as a text, so it stands alone: nothing of this project, the standard library only. What it makes
is ours provably, and at any moment: first a register named by the operation lies in the directory, then a file under
a name of the operation's own, then its identity is in the register, and only then it gets the disk's name, which
never replaces another file. Only what the register names, and what is still that file, is removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from typing import Any

LIFE_S = 120
CREATE_S = 60.0
CHAIN_S = 10.0
REGISTER, FRESH, ASIDE = ".refimpl-images-", ".refimpl-image-", ".refimpl-aside-"


class Refused(OSError):
    """An image cannot be made: `what` tells why, and `values` more about it."""

    def __init__(self, what: str, text: str, **values: str) -> None:
        super().__init__(text)
        self.what = what
        self.values = values


KINDS = {
    errno.ENOSPC: "no_room",
    errno.EDQUOT: "no_room",
    errno.EROFS: "no_writes",
    errno.EACCES: "no_writes",
    errno.EPERM: "no_writes",
    errno.ENOENT: "no_directory",
    errno.ENOTDIR: "no_directory",
    errno.ELOOP: "no_directory",
}
"""What an error of the system means for making an image."""


def identity(path: str) -> str | None:
    """Return what tells a file from any other on this host, links followed; None when there is none."""
    done = subprocess.run(["stat", "-L", "-c", "%i %W", "--", path], capture_output=True)
    if done.returncode != 0:
        return None
    inode, born = done.stdout.decode().split()
    return f"{os.statvfs(path).f_fsid:x}:{inode}:{born}"


def exactly(path: str) -> str | None:
    """Return the same with the moment of its birth as exact as it is known: a number is soon given to another file."""
    done = subprocess.run(["stat", "-L", "-c", "%i %w", "--", path], capture_output=True)
    return done.stdout.decode() if done.returncode == 0 else None


def make(question: dict[str, Any]) -> dict[str, Any]:
    """Make an image for each disk: `path`, `format`, `bytes`. OSError when one cannot be had; then none is left.

    `allowed`: directories in which they have to be; `overwrite`: a file that is there is put aside, unless it is one of
    `used`, a disk of a VM of this host or what such a disk is based on.
    """
    operation = question["operation"]
    try:
        for number, disk in enumerate(question["disks"]):
            try:
                place(question, number, disk)
            except OSError as error:
                raise known_as(error, disk["path"]) from error
    except OSError:
        undo({"operation": operation, "directories": folders_of(question["disks"]), "used": {}})
        raise
    return {}


def known_as(error: OSError, path: str) -> OSError:
    """Return an error as what it means for making an image, where that is known."""
    if isinstance(error, Refused):
        return error
    text = error.strerror or str(error)
    what = KINDS.get(error.errno or 0, "no_room" if os.strerror(errno.ENOSPC) in text else "")
    return Refused(what, text, path=path) if what else error


def place(question: dict[str, Any], number: int, disk: dict[str, Any]) -> None:
    """Make one image and give it its name, in the directory as it is when it is opened: no link is followed later."""
    path, folder = disk["path"], os.path.dirname(disk["path"])
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        within(descriptor, path, question["allowed"])
        at = f"/proc/{os.getpid()}/fd/{descriptor}"
        place_at(question, number, disk, at)
    finally:
        os.close(descriptor)


def within(descriptor: int, path: str, allowed: list[str]) -> None:
    """Refuse a directory that is really outside those that are allowed."""
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in allowed):
        text = f"{os.path.dirname(path)} is really {real}, which is not within {', '.join(allowed)}"
        raise Refused("outside", text, path=path, real=real, allowed=", ".join(allowed))


def place_at(question: dict[str, Any], number: int, disk: dict[str, Any], at: str) -> None:
    """Make one image in the directory that is open as `at`, in which every name of it is looked up."""
    path, operation = disk["path"], question["operation"]
    there = os.path.join(at, os.path.basename(path))
    register = read(operation, at)
    known = register.get(path)
    if known is not None and exactly(there) == known["identity"] is not None:
        return
    if os.path.lexists(there):
        may_be_replaced(there, path, question["overwrite"], question.get("used", {}))
    fresh, aside = f"{FRESH}{operation}-{number}", f"{ASIDE}{operation}-{number}"
    folder = os.path.dirname(path)
    entry: dict[str, Any] = {"fresh": os.path.join(folder, fresh), "aside": None, "identity": None}
    write(operation, at, {**register, path: entry})
    fresh = os.path.join(at, fresh)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    create(fresh, disk["format"], disk["bytes"])
    entry |= {"aside": os.path.join(folder, aside) if os.path.lexists(there) else None, "identity": exactly(fresh)}
    write(operation, at, {**register, path: entry})
    if entry["aside"] is not None:
        os.rename(there, os.path.join(at, aside))
    os.link(fresh, there)
    os.unlink(fresh)
    flush(at)


def may_be_replaced(there: str, path: str, overwrite: bool, used: dict[str, str]) -> None:
    """Refuse to put a file aside that nobody said may be, or that a VM has, by whatever name."""
    if not overwrite:
        raise Refused("exists", f"{path} exists", path=path)
    owner = owners(used).get(identity(there) or "")
    if owner is not None:
        raise Refused("used", f"{path} is {owner}, a disk of a VM or what one is based on", path=path, owner=owner)


def create(path: str, kind: str, size: int) -> None:
    """Make an empty image of its own, based on nothing."""
    if kind == "raw":
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        return
    command = ["qemu-img", "create", "-q", "-f", kind, "--", path, str(size)]
    done = subprocess.run(command, capture_output=True, timeout=CREATE_S, umask=0o077)
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip() or f"qemu-img ended with {done.returncode}")


def undo(question: dict[str, Any]) -> dict[str, Any]:
    """Remove what an operation has made in these directories; tell what is left and why. What was aside comes back."""
    return each_entry(question, take_back)


def keep(question: dict[str, Any]) -> dict[str, Any]:
    """Leave what an operation has made, and forget that it has; tell what is kept."""
    kept: list[str] = []

    def work(path: str, entry: dict[str, Any], _used: set[str]) -> str | None:
        if entry["identity"] is not None and exactly(path) == entry["identity"]:
            kept.append(path)
            if entry["aside"] is not None and os.path.lexists(entry["aside"]):
                kept.append(f"{entry['aside']} (what was there before)")
        remove(entry["fresh"])
        return None

    return {**each_entry(question, work), "kept": kept}


def adopt(question: dict[str, Any]) -> dict[str, Any]:
    """What an operation has made belongs to its VM now: forget that it was made, and remove what was put aside."""

    def work(_path: str, entry: dict[str, Any], _used: set[str]) -> str | None:
        remove(entry["fresh"])
        remove(entry["aside"])
        return None

    return each_entry(question, work)


def made(question: dict[str, Any]) -> dict[str, Any]:
    """Tell which files an operation has made and that nothing was decided about."""
    return {"left": [path for folder in question["directories"] for path in read(question["operation"], folder)]}


def each_entry(question: dict[str, Any], work: Any) -> dict[str, Any]:
    """Do something with each file of the registers; a register goes when all is done that it names."""
    left, used, operation = [], users(question["used"]), question["operation"]
    for folder in question["directories"]:
        register = read(operation, folder)
        staying = {}
        for path, entry in register.items():
            why = work(path, entry, used)
            if why is not None:
                left.append(why)
                staying[path] = entry
        if staying:
            write(operation, folder, staying)
        else:
            remove(os.path.join(folder, REGISTER + operation))
        remove(os.path.join(folder, REGISTER + operation + ".new"))
        with contextlib.suppress(OSError):
            flush(folder)
    return {"left": left}


def take_back(path: str, entry: dict[str, Any], used: set[str]) -> str | None:
    """Remove one file that was made; return why it stays."""
    remove(entry["fresh"])
    now = exactly(path) if os.path.lexists(path) else None
    if now is not None and now == entry["identity"]:
        if identity(path) in used:
            return f"{path}, which is a disk of a VM"
        os.unlink(path)
        now = None
    aside = entry["aside"]
    if aside is not None and os.path.lexists(aside):
        if now is not None:
            return f"{aside}, which was {path} before; there is another file now"
        os.link(aside, path)
        os.unlink(aside)
    return None


def retire(question: dict[str, Any]) -> dict[str, Any]:
    """Remove files of disks that have moved: `path` and `identity` of each. Tell what is left and why.

    `used`: disks of the VMs of this host with their formats; their files, and what those are based on, stay. `needed`:
    the identities of files that other hosts need; they stay too. So does everything while a disk does not tell its own.
    """
    left, used = [], users(question["used"], surely=True) | set(question["needed"])
    for file in question["files"]:
        path = file["path"]
        now = identity(path) if os.path.lexists(path) else None
        if now is None:
            continue
        if os.path.islink(path):
            left.append(f"{path}, which is a link")
        elif now != file["identity"]:
            left.append(f"{path}, which is another file by now")
        elif now in used:
            left.append(f"{path}, which another VM has")
        else:
            os.unlink(path)
            flush(os.path.dirname(path))
    return {"left": left}


def needed(question: dict[str, Any]) -> dict[str, Any]:
    """Tell the identities of all files that the VMs of this host have, or are based on. `used` as of `retire`."""
    return {"identities": sorted(users(question["used"], surely=True))}


def users(disks: dict[str, str], *, surely: bool = False) -> set[str]:
    """Return the identities of disks, by path with the format that they are defined as, and of all they are based on.

    Only an image that is defined as one is asked: a guest can write anything to a raw disk, such a header too.
    """
    return set(owners(disks, surely=surely))


def owners(disks: dict[str, str], *, surely: bool = False) -> dict[str, str]:
    """Return the same with the path of the disk that has each. `surely`: OSError when one does not tell its bases."""
    found = {path: seen for path in disks if (seen := identity(path)) is not None}
    having = {seen: path for path, seen in found.items()}
    for path in [path for path in found if disks[path] == "qcow2"]:
        command = ["qemu-img", "info", "-U", "-f", "qcow2", "--backing-chain", "--output=json", "--", path]
        done = subprocess.run(command, capture_output=True, timeout=CHAIN_S)
        if surely and done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise OSError(f"what {path} is based on, a disk of another VM, cannot be told: {said}")
        for image in json.loads(done.stdout) if done.returncode == 0 else []:
            seen = identity(image["filename"])
            if seen is not None:
                having.setdefault(seen, path)
    return having


def folders_of(disks: list[dict[str, Any]]) -> list[str]:
    """Return the directories of disks, each once."""
    return list(dict.fromkeys(os.path.dirname(disk["path"]) for disk in disks))


def read(operation: str, folder: str) -> dict[str, dict[str, Any]]:
    """Return the register of an operation in a directory, empty when there is none."""
    try:
        with open(os.path.join(folder, REGISTER + operation), encoding="utf-8") as file:
            register: dict[str, dict[str, Any]] = json.load(file)
            return register
    except OSError as error:
        if KINDS.get(error.errno or 0) == "no_directory":
            return {}
        raise


def write(operation: str, folder: str, register: dict[str, dict[str, Any]]) -> None:
    """Keep a register, durably, whole or not at all."""
    name = os.path.join(folder, REGISTER + operation)
    with open(name + ".new", "w", encoding="utf-8") as file:
        json.dump(register, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name + ".new", name)
    flush(folder)


def flush(folder: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str | None) -> None:
    """Remove a file of our own name, if it is there."""
    if path is None:
        return
    try:
        os.unlink(path)
    except OSError as error:
        if KINDS.get(error.errno or 0) != "no_directory":
            raise


ANSWERS = {work.__name__: work for work in (make, undo, keep, adopt, made, retire, needed)}


def main() -> None:
    """Answer until the questions end."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("nobody asked for two minutes"))
    for line in sys.stdin.buffer:
        signal.alarm(LIFE_S)
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"answer": ANSWERS[question["do"]](question)}
        except (OSError, subprocess.TimeoutExpired) as error:
            answer = {"why": str(error)}
            if isinstance(error, Refused):
                answer |= {"what": error.what, "values": error.values}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
