"""Which accelerator a VM gets. `/dev/kvm` may be there and still not run a guest, so nothing is believed (rule 9)."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl.model.errors import error


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The choice (`kvm` or `tcg`) and why."""

    name: str
    why: str


def choose(wanted: str = "auto") -> Accelerator:
    """Return the accelerator for `auto`, `kvm` or `tcg`; `accelerator.absent` when KVM was demanded and is absent."""
    if wanted == "tcg":
        return Accelerator("tcg", "as asked")
    from refimpl.guest.accelerator import probe

    found = probe()
    if found.usable:
        return Accelerator("kvm", found.why)
    if wanted == "kvm":
        raise error("accelerator.absent", detail=found.why)
    return Accelerator("tcg", found.why)
