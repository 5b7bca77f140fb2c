"""A guest under plain QEMU, without libvirt: one process, its QMP socket and its two serial files."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from refimpl.guest import GuestImage, GuestParameters

DEADLINE_S = 120.0


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class PlainQemu:
    """One QEMU process under TCG; a context manager that ends it."""

    def __init__(
        self,
        directory: Path,
        name: str,
        image: GuestImage,
        parameters: GuestParameters,
        *,
        incoming: Path | None = None,
    ) -> None:
        self.name = name
        self.console = directory / f"{name}.console"
        self.lines = directory / f"{name}.lines"
        self.command_port = free_udp_port()
        self.events: list[dict[str, Any]] = []
        self._qmp_path = directory / f"{name}.qmp"
        options = _options(image, parameters, directory / "disk.raw", self.console, self.lines, self.command_port)
        options += ["-qmp", f"unix:{self._qmp_path},server=on,wait=off"]
        if incoming:
            options += ["-incoming", f"unix:{incoming}"]
        self._log = (directory / f"{name}.stderr").open("w")
        self.process = subprocess.Popen(["qemu-system-x86_64", *options], stderr=self._log, stdin=subprocess.DEVNULL)
        self._connect()

    def _connect(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(self._qmp_path))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(Path(self._log.name).read_text()) from None
                time.sleep(0.02)
        self._socket.settimeout(DEADLINE_S)
        self._stream = self._socket.makefile("r")
        self._receive()
        self.qmp("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._stream.readline())
        if "event" in message:
            self.events.append(message)
        return message

    def qmp(self, command: str, **arguments: Any) -> Any:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._receive()
            if "error" in message:
                raise RuntimeError(f"{command}: {message['error']}")
            if "return" in message:
                return message["return"]

    def wait_for_event(self, name: str) -> int:
        """Return the time of the first event of that name in nanoseconds since the epoch; waits for it."""
        while not (found := [event for event in self.events if event["event"] == name]):
            self._receive()
        stamp = found[0]["timestamp"]
        return int(stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000)

    def __enter__(self) -> PlainQemu:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stream.close()
        self._socket.close()
        self._log.close()


def _options(
    image: GuestImage, parameters: GuestParameters, disk: Path, console: Path, lines: Path, command_port: int
) -> list[str]:
    text = f"""
        -machine q35 -accel tcg -cpu qemu64 -m 96 -nodefaults -display none
        -kernel {image.kernel} -initrd {image.initramfs}
        -chardev file,id=console,path={console},append=on -device isa-serial,chardev=console
        -chardev file,id=lines,path={lines},append=on -device isa-serial,chardev=lines
        -blockdev driver=file,filename={disk},node-name=disk -device virtio-blk-pci,drive=disk
        -netdev user,id=net,restrict=off,hostfwd=udp:127.0.0.1:{command_port}-10.0.2.15:7001
        -device virtio-net-pci,netdev=net,romfile=
    """
    return [*text.split(), "-append", parameters.command_line()]
