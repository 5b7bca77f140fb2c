"""Take a kernel and the few modules that the guest needs from the distribution's package, without installing it.

The meta package of the table is resolved to the concrete packages by what apt knows, these are downloaded and unpacked
into a directory of their own. `modules.dep` is made only when a kernel is installed, so the dependencies of a module
are read from the module itself.
"""

from __future__ import annotations

import gzip
import lzma
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.hosts.command import run_local
from refimpl.model.errors import Problem, RefimplError

WANTED_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
USEFUL_MODULES = ("pvpanic_mmio",)
"""Modules without which the guest works; not every kernel has them: the one that tells the host of a panic."""

_META_PACKAGES = {
    "debian": ("linux-image-cloud-amd64", "linux-image-amd64"),
    "ubuntu": ("linux-image-virtual", "linux-image-kvm", "linux-image-generic"),
}
_CONCRETE = re.compile(r"linux-(?:image|modules|binary)-\d\S*")
_PACKED = {".xz": lzma.decompress, ".gz": gzip.decompress}


class GuestBuildError(RefimplError):
    """The guest's image cannot be built; `mend` is what to do about it."""

    def __init__(self, text: str, mend: str) -> None:
        self.mend = mend
        super().__init__(Problem(id="guest.not_built", values={"detail": text.rstrip("."), "mend": mend}))


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """One concrete package of the distribution: name and version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def run(command: Sequence[str], *, cwd: Path | None = None, timeout_s: float = 300.0) -> str:
    """Run a command to its end and return what it printed; GuestBuildError when it is missing or fails."""
    try:
        done = run_local(command, cwd=cwd, timeout_s=timeout_s)
    except FileNotFoundError:
        raise GuestBuildError(f"{command[0]} is not installed", "install what `ci/setup` lists") from None
    except TimeoutError:
        raise GuestBuildError(f"{command[0]} did not end within {timeout_s:.0f} s", "try again") from None
    if done.status:
        tail = (done.stderr or done.stdout).strip()[-500:]
        raise GuestBuildError(f"`{' '.join(command)}` failed with status {done.status}: {tail}", "see the text")
    return done.stdout


def distribution() -> str:
    """Return `debian` or `ubuntu`, whichever the machine is or is made from; GuestBuildError for any other."""
    release = platform.freedesktop_os_release()
    known = [name for name in (release["ID"], *release.get("ID_LIKE", "").split()) if name in _META_PACKAGES]
    if known:
        return known[0]
    raise GuestBuildError(f"no kernel package is known for {release['ID']}", "build the guest on Debian or Ubuntu")


def resolve_packages(meta_packages: Iterable[str] | None = None) -> tuple[KernelPackage, ...]:
    """Return the concrete kernel packages behind the first meta package that apt knows (the image first).

    GuestBuildError when apt knows none of them.
    """
    names = tuple(meta_packages or _META_PACKAGES[distribution()])
    for meta in names:
        found = {package.name: package for package in _dependencies(meta, depth=0)}
        if any(name.startswith("linux-image-") for name in found):
            return tuple(sorted(found.values(), key=lambda package: package.name))
    raise GuestBuildError(f"apt knows no kernel package (looked for {', '.join(names)})", "run `apt-get update`")


def _dependencies(name: str, depth: int) -> list[KernelPackage]:
    record = _apt_record(name)
    if record is None or depth > 2:
        return []
    own = [KernelPackage(name, record["Version"])] if _CONCRETE.fullmatch(name) else []
    first_alternatives = (clause.split("|")[0].split("(")[0].strip() for clause in record.get("Depends", "").split(","))
    wanted = [found for found in first_alternatives if _CONCRETE.fullmatch(found)]
    return own + [package for dependency in wanted for package in _dependencies(dependency, depth + 1)]


def _apt_record(name: str) -> dict[str, str] | None:
    try:
        text = run(["apt-cache", "--no-all-versions", "show", name], timeout_s=60)
    except GuestBuildError:
        return None
    fields = (line.split(": ", 1) for line in text.split("\n\n")[0].splitlines() if ": " in line)
    record = {key: value for key, value in fields if not key.startswith(" ")}
    return record if "Version" in record else None


def unpack(packages: Sequence[KernelPackage], directory: Path) -> Path:
    """Download the packages into `directory` and unpack them there; return the root of the unpacked tree."""
    root = directory / "root"
    root.mkdir()
    run(["apt-get", "download", *map(str, packages)], cwd=directory)
    for archive in directory.glob("*.deb"):
        run(["dpkg-deb", "-x", str(archive), str(root)])
        archive.unlink()
    return root


def find_kernel(root: Path) -> tuple[str, Path]:
    """Return the release and the path of the one kernel in an unpacked tree."""
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    if not kernels:
        raise GuestBuildError("the kernel package holds no /boot/vmlinuz-*", "report the package's name and version")
    return kernels[-1].name.removeprefix("vmlinuz-"), kernels[-1]


def modules_in_order(
    root: Path, wanted: Iterable[str] = WANTED_MODULES, useful: Iterable[str] = USEFUL_MODULES
) -> dict[str, bytes]:
    """Return module files by name, each after those it needs; what the kernel has built in is left out.

    GuestBuildError when a wanted module is neither there nor built in; a useful one may be missing.
    """
    available = {_module_name(path.name): path for path in root.glob("**/lib/modules/*/kernel/**/*.ko*")}
    lists = root.glob("**/lib/modules/*/modules.builtin")
    builtin = {_module_name(Path(line).name) for path in lists for line in path.read_text().splitlines()}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name in builtin:
            return
        if name not in available:
            raise GuestBuildError(f"the kernel has no module {name}", "use another kernel package")
        content = read_module(available[name])
        for dependency in module_dependencies(content):
            add(dependency)
        ordered[name] = content

    for name in (*wanted, *(name for name in useful if name in available)):
        add(name)
    return ordered


def _module_name(file_name: str) -> str:
    return file_name.split(".ko")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """Return a module's content, unpacked (.xz, .gz by Python, .zst by the `zstd` program)."""
    packed = path.read_bytes()
    if path.suffix in _PACKED:
        return _PACKED[path.suffix](packed)
    if path.suffix == ".zst":
        plain = path.with_suffix("")
        run(["zstd", "-d", "-q", "-f", str(path), "-o", str(plain)])
        return plain.read_bytes()
    return packed


def module_dependencies(content: bytes) -> list[str]:
    """Return the names of the modules that a module says it needs (the `depends` entry of its information)."""
    entry = re.search(rb"(?:\0|^)depends=([^\0]*)\0", content)
    names = entry[1].decode() if entry else ""
    return [name.replace("-", "_") for name in names.split(",") if name]
