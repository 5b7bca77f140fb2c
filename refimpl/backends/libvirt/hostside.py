"""What runs on a host while it is looked at: answers a question a line about links, files, and a file of a probe.

It is sent to the host as a text, so it stands alone: nothing of this project, the standard library only. It ends with
its standard input, however that ends, or after a minute, and takes the files of its probe with it. A probe's file is
locked as long as its maker lives; one that is old and not locked was left by a host that fell, and is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LIFE_S = 60
FILES_S = 5.0
CHAIN_S = 4.0
STALE_S = 120.0
PROBE_PREFIX = ".refimpl-probe-"
CHUNK_BYTES = 1 << 20
MAGIC = (
    (0, b"QFI\xfb\0\0\0\1", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"LUKS\xba\xbe", "luks"),
)
_FOOTER_BYTES = 512
_EXTERNAL_DATA = 1 << 2

made: dict[str, int] = {}
"""Files of probes, and the descriptor that holds each one's lock."""
ending = threading.Event()


def each(paths: list[str], work: Callable[[str], Any]) -> dict[str, Any]:
    """Do the same for each path, all at once; what does not end in time, as on storage that hangs, is missing."""
    found: dict[str, Any] = {}

    def one(path: str) -> None:
        try:
            found[path] = work(path)
        except OSError as error:
            found[path] = {"why": error.strerror or str(error)}

    threads = [threading.Thread(target=one, args=(path,), daemon=True) for path in paths]
    end = time.monotonic() + FILES_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def clock(_question: dict[str, Any]) -> float:
    """Tell the time."""
    return time.time()


def network(_question: dict[str, Any]) -> list[str]:
    """Tell links with their addresses, IPv4 routes and IPv6 routes, each as `ip` tells them."""
    asked = (["-d", "address", "show"], ["-4", "route", "show"], ["-6", "route", "show"])
    pipe = subprocess.PIPE
    running = [subprocess.Popen(["ip", "-j", *words], stdout=pipe, stderr=pipe) for words in asked]
    answers = []
    for process, words in zip(running, asked, strict=True):
        out, err = process.communicate()
        if process.returncode != 0:
            raise OSError(f"ip {' '.join(words)}: {err.decode(errors='replace').strip()}")
        answers.append(out.decode())
    return answers


def files(question: dict[str, Any]) -> dict[str, Any]:
    """Tell what files are, by path; `formats` says as what their definition takes them."""
    formats = question["formats"]
    return each(question["paths"], lambda path: look(path, formats.get(path)))


def look(path: str, declared: str | None) -> dict[str, Any]:
    """Tell identity, size, content, times, what the file is based on, and whether it can be written."""
    done = subprocess.run(["stat", "-L", "-c", "%i %W", "--", path], capture_output=True)
    if done.returncode != 0:
        os.stat(path)  # raises the reason
        raise OSError("stat did not answer")
    inode, born = done.stdout.decode().split()
    entry = os.stat(path)
    size, kind, based = inside(path, entry, declared)
    bases, broken = chain(path) if based else ([], "")
    return {
        "identity": f"{os.statvfs(path).f_fsid:x}:{inode}:{born}",
        "size": size,
        "modified": entry.st_mtime_ns,
        "content": kind,
        "chain": bases,
        "broken": broken,
        "virtual": virtual(path, size, kind, declared),
        "allocated": entry.st_blocks * 512,
        "file_system": file_system(os.path.realpath(path)),
        "writable": writable(path, entry),
    }


def writable(path: str, entry: os.stat_result) -> bool:
    """Tell whether what holds a file takes writes: its file system as it is mounted here, or its device."""
    if not stat.S_ISBLK(entry.st_mode):
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    with contextlib.suppress(OSError):
        device = f"{os.major(entry.st_rdev)}:{os.minor(entry.st_rdev)}"
        with open(f"/sys/dev/block/{device}/ro", encoding="ascii") as told:
            return told.read().strip() != "1"
    return True


def inside(path: str, entry: os.stat_result, declared: str | None) -> tuple[int, str | None, bool]:
    """Tell a file's size, what it begins like (None: it cannot be read), and whether it needs another file."""
    if not (stat.S_ISREG(entry.st_mode) or stat.S_ISBLK(entry.st_mode)):
        return entry.st_size, None, False
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            kind = content(file, size)
            return size, kind, kind == declared == "qcow2" and depends(file)
    except OSError:
        return entry.st_size, None, False


def content(file: Any, size: int) -> str:
    """Tell what a file begins like, or ends like: a VHD of fixed size has its mark there only."""
    head = at(file, 0, 128)
    for offset, magic, name in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    return "vpc" if size >= _FOOTER_BYTES and at(file, size - _FOOTER_BYTES, 8) == b"conectix" else "raw"


def at(file: Any, offset: int, length: int) -> bytes:
    """Read a part of a file."""
    file.seek(offset)
    return bytes(file.read(length))


def depends(file: Any) -> bool:
    """Tell whether a qcow2 file says that it needs another one."""
    head = at(file, 0, 80)
    if len(head) < 72:
        return False
    backing = struct.unpack(">Q", head[8:16])[0] != 0
    version = struct.unpack(">I", head[4:8])[0]
    features = struct.unpack(">Q", head[72:80])[0] if version >= 3 and len(head) == 80 else 0
    return backing or bool(features & _EXTERNAL_DATA)


def virtual(path: str, size: int, kind: str | None, declared: str | None) -> int | None:
    """Tell how long a guest sees an image, None when its format does not tell that here."""
    if declared == "qcow2" and kind == "qcow2":
        with contextlib.suppress(OSError, struct.error), open(path, "rb") as file:
            length: int = struct.unpack(">Q", at(file, 24, 8))[0]
            return length
    return size if declared == "raw" and kind is not None else None


def chain(path: str) -> tuple[list[str], str]:
    """Tell the files on which an image is based, or why they cannot be told. Only of images defined as such."""
    command = ["qemu-img", "info", "-U", "-f", "qcow2", "--backing-chain", "--output=json", "--", path]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CHAIN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    if done.returncode != 0:
        return [], done.stderr.decode(errors="replace").strip() or "qemu-img does not say why"
    images = json.loads(done.stdout)
    data = [i.get("format-specific", {}).get("data", {}).get("data-file") for i in images]
    found = [i["filename"] for i in images[1:]] + [name for name in data if name]
    return [name for name in dict.fromkeys(found) if name.startswith("/")], ""


def targets(question: dict[str, Any]) -> dict[str, Any]:
    """Tell how the places look to which disks would go, by path."""
    return each(question["paths"], target)


def target(path: str) -> dict[str, Any]:
    """Tell what is at a path, and about the directory: where it really is, whether it takes writes, what is free."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        there = os.path.lexists(folder)
        return {"directory": "it is no directory" if there else "there is no such directory"}
    about = os.statvfs(folder)
    taken = None
    if os.path.lexists(path):
        taken = look(path, None)["identity"] if os.path.exists(path) else "a link to nothing"
    return {
        "identity": taken,
        "directory": "",
        "real": os.path.realpath(folder),
        "writable": os.access(folder, os.W_OK) and not about.f_flag & os.ST_RDONLY,
        "free_bytes": about.f_bavail * about.f_frsize,
        "file_system": str(os.stat(folder).st_dev),
    }


def file_system(path: str) -> str:
    """Tell the type of the file system that holds a path."""
    best, kind = "", ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            point = left.split()[4].encode("latin-1", "replace").decode("unicode_escape")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, right.split()[0]
    return kind


def modes(question: dict[str, Any]) -> dict[str, Any]:
    """Tell the permission bits of files."""
    return each(question["paths"], lambda path: stat.S_IMODE(os.stat(path).st_mode))


def places(question: dict[str, Any]) -> dict[str, Any]:
    """Tell device and inode of files, as /proc/locks names them."""
    return each(question["paths"], lambda path: [os.stat(path).st_dev, os.stat(path).st_ino])


def hashes(question: dict[str, Any]) -> dict[str, Any]:
    """Tell the SHA-256 of files, None of one that is longer than the limit or takes too long."""
    end = time.monotonic() + question["seconds"]
    return {path: sha256(path, question["bytes"], end) for path in question["paths"]}


def sha256(path: str, limit_bytes: int, end: float) -> str | None:
    """Return the hash of a file as text, None when it cannot be had."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) > limit_bytes:
                return None
            file.seek(0)
            while data := file.read(CHUNK_BYTES):
                if time.monotonic() > end:
                    return None
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()


def needed(question: dict[str, Any]) -> list[str] | None:
    """Tell the shared libraries that a 64-bit ELF program names, None when it is something else."""
    try:
        with open(question["path"], "rb") as file:
            return elf_needed(file)
    except (OSError, struct.error):
        return None


def elf_needed(file: Any) -> list[str] | None:
    """Return the names in the dynamic section of an open file."""
    head = at(file, 0, 64)
    if head[:6] != b"\x7fELF\2\1":
        return None
    offset, size, count = struct.unpack("<Q", head[32:40])[0], *struct.unpack("<HH", head[54:58])
    segments = [struct.unpack("<IIQQQQ", at(file, offset + n * size, 40)) for n in range(count)]
    dynamic = next(((s[2], s[5]) for s in segments if s[0] == 2), None)
    if dynamic is None:
        return None
    entries = list(struct.iter_unpack("<QQ", at(file, dynamic[0], dynamic[1] // 16 * 16)))
    table = next((value for tag, value in entries if tag == 5), 0)
    start = next((s[2] + table - s[3] for s in segments if s[0] == 1 and s[3] <= table < s[3] + s[5]), 0)
    return [at(file, start + v, 256).split(b"\0")[0].decode(errors="replace") for tag, v in entries if tag == 1]


def write(question: dict[str, Any]) -> dict[str, Any]:
    """Put the probe's file into the directory of each path; a path's answer is empty when it is there."""
    found, folders = folders_of(question["paths"])
    name, text = question["name"], question["text"]
    put = each(list(folders), lambda folder: leave(os.path.join(folder, name), text))
    return {**found, **{path: put.get(folder) for folder, paths in folders.items() for path in paths}}


def leave(path: str, text: str) -> dict[str, Any]:
    """Make the file, closed so that another host sees all of it, and keep its lock."""
    clear(os.path.dirname(path))
    made[path] = -1
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
        made[path] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(made[path], fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        remove(path)
        raise
    if ending.is_set():
        remove(path)
    return {}


def clear(folder: str) -> None:
    """Remove what probes have left that nobody holds any more."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(PROBE_PREFIX) or not entry.is_file(follow_symlinks=False):
            continue
        try:
            if time.time() - entry.stat().st_mtime < STALE_S:
                continue
            descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
            finally:
                os.close(descriptor)
        except OSError:
            continue


def read(question: dict[str, Any]) -> dict[str, Any]:
    """Tell what the file of another host's probe holds, seen in the directory of each path."""
    found, folders = folders_of(question["paths"])
    seen = each(list(folders), lambda folder: {"text": text_of(os.path.join(folder, question["name"]))})
    return {**found, **{path: seen.get(folder) for folder, paths in folders.items() for path in paths}}


def text_of(path: str) -> str:
    """Return the beginning of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256).decode(errors="replace")
    finally:
        os.close(descriptor)


def folders_of(paths: list[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return which paths have no directory to write to, and the others by their directory."""
    seen = each(paths, folder_of)
    refused = {path: seen.get(path) for path in paths if not isinstance(seen.get(path), str)}
    folders: dict[str, list[str]] = {}
    for path in paths:
        if path not in refused:
            folders.setdefault(seen[path], []).append(path)
    return refused, folders


def folder_of(path: str) -> str:
    """Return the directory in which a disk's file is, with links followed. OSError when it is no place for a file."""
    real = os.path.realpath(path)
    if os.path.exists(real) and not os.path.isfile(real):
        raise OSError("not a file, so nothing can be written beside it")
    return os.path.dirname(real)


def remove(path: str) -> None:
    """Take away the file of a probe."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    descriptor = made.pop(path, -1)
    if descriptor >= 0:
        os.close(descriptor)


def done(_question: dict[str, Any]) -> dict[str, Any]:
    """Take away all files of the probe."""
    for path in list(made):
        remove(path)
    return {}


def user_faults(question: dict[str, Any]) -> bool:
    """Tell whether a process of a user can be told of pages that are missing, by trying it as that user."""
    child = os.fork()
    if child == 0:
        able = False
        try:
            if question["uid"]:
                os.setgroups([])
                os.setgid(question["gid"])
                os.setuid(question["uid"])
            able = _userfaultfd()
        finally:
            os._exit(0 if able else 1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _userfaultfd() -> bool:
    """Try both ways that QEMU has; what is opened goes with the process."""
    with contextlib.suppress(OSError):
        os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
        return True
    number = {"x86_64": 323, "aarch64": 282}.get(os.uname().machine)
    return number is not None and ctypes.CDLL(None).syscall(number, os.O_CLOEXEC | os.O_NONBLOCK) >= 0


_WORK = (clock, network, files, targets, modes, places, hashes, needed, write, read, user_faults, done)
ANSWERS = {work.__name__: work for work in _WORK}


def main() -> None:
    """Answer until the questions end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("nobody asked for a minute"))
    try:
        signal.alarm(LIFE_S)
        for line in sys.stdin.buffer:
            question = json.loads(line)
            answer: dict[str, Any]
            try:
                answer = {"answer": ANSWERS[question["do"]](question)}
            except OSError as error:
                answer = {"why": str(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
            signal.alarm(LIFE_S)
    finally:
        ending.set()
        done({})
    # Not by the usual way out: a thread that waits for storage would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
