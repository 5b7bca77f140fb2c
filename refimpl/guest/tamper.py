"""Damage a guest from outside, to prove that its observers notice: a page of memory, a block of its disk.

A page: the guest says where one of its pages lies (`page-at` line, or command `where`); QEMU's human monitor command
`gpa2hva ADDRESS` says where that is in QEMU's own memory; `flip_in_process` turns bits there. The guest is not stopped
and knows nothing. Done before a move, the change travels only if the page is sent after it, for writing from outside
marks no page as dirty: do it on the destination after the move, or before the first pass.

A block: `flip_in_file` on the raw image, at slot times 4096 and some bytes.
"""

from __future__ import annotations

import re
from pathlib import Path


def host_address(answer: str) -> int:
    """Return the address in QEMU's memory from the answer to `gpa2hva`; ValueError when it holds none."""
    found = re.search(r"is (0x[0-9a-fA-F]+)\s*$", answer.strip())
    if not found:
        raise ValueError(f"no host address in {answer!r}")
    return int(found[1], 16)


def flip_in_process(pid: int, address: int, *, mask: int = 0xFF) -> None:
    """Turn bits of one byte in a process's memory; needs the right to trace it (PermissionError)."""
    flip_in_file(Path(f"/proc/{pid}/mem"), address, mask=mask)


def flip_in_file(path: Path, offset: int, *, mask: int = 0xFF) -> None:
    """Turn bits of one byte of a file in place; ValueError behind its end."""
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)
        if not byte:
            raise ValueError(f"{path} has no byte at {offset}")
        file.seek(offset)
        file.write(bytes([byte[0] ^ mask]))
