"""Write an initramfs: an uncompressed cpio archive in the *newc* format (uncompressed, for a guest without KVM
unpacks slowly, and it is small)."""

from __future__ import annotations

import stat
from collections.abc import Mapping

_DIRECTORIES = ("dev", "proc", "sys", "modules")
_CONSOLE = (5, 1)


def write_cpio(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return an archive of files (path -> content, permission bits), the usual mount points and /dev/console.

    Every entry belongs to root and has time 0: the same input gives the same bytes.
    """
    entries = [_entry(i, path, stat.S_IFDIR | 0o755, b"") for i, path in enumerate(_DIRECTORIES, 1)]
    entries.append(_entry(len(entries) + 1, "dev/console", stat.S_IFCHR | 0o600, b"", _CONSOLE))
    for path, (content, mode) in files.items():
        entries.append(_entry(len(entries) + 1, path, stat.S_IFREG | mode, content))
    entries.append(_entry(0, "TRAILER!!!", 0, b""))
    return b"".join(entries)


def _entry(inode: int, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
