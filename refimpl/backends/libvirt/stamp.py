"""The mark that an operation leaves on the VM itself: enough to recover it when the journal is gone (rule 6).

It lives in the domain's metadata under a namespace of its own, live and in the stored definition, and travels with
the VM. CLEAN_UP takes it off again, and leaves the owner record as it stands then, which stays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt.connection import code, module
from refimpl.backends.libvirt.domain import parse
from refimpl.model.ownership import OwnerRecord
from refimpl.model.request import Plan

NAMESPACE = "urn:refimpl:operation:1"
OWNER_NAMESPACE = "urn:refimpl:owner:1"
_PREFIX = "refimpl"
_OWNER_PREFIX = "refimpl-owner"
_TAG = f"{{{NAMESPACE}}}operation"
_OWNER_TAG = f"{{{OWNER_NAMESPACE}}}owner"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which operation moves this VM, by what plan, and the epoch of the owner record that it has begun (0: none)."""

    operation: str
    plan: Plan
    epoch: int = 0


def to_xml(stamp: Stamp) -> str:
    """Return the element that is stored."""
    plan = stamp.plan
    values = {"id": stamp.operation, "source": plan.source, "destination": plan.destination, "epoch": str(stamp.epoch)}
    element = ET.Element("operation", values)
    element.text = json.dumps(plan.to_json(), sort_keys=True)
    return ET.tostring(element, encoding="unicode")


def from_domain_xml(xml: str) -> Stamp | None:
    """Return the stamp that a domain's XML carries; None when there is none or it cannot be read."""
    element = parse(xml).find(f"metadata/{_TAG}")
    if element is None:
        return None
    try:
        plan = Plan.from_json(json.loads(element.text or ""))
        return Stamp(element.get("id", ""), plan, _number(element.get("epoch")))
    except (ValueError, TypeError, KeyError):
        return None


def epoch(xml: str) -> int:
    """Return the highest epoch of the owner record that a domain's XML carries, 0 when it carries none."""
    metadata = parse(xml).find("metadata")
    found = [] if metadata is None else [metadata.find(tag) for tag in (_TAG, _OWNER_TAG)]
    return max((_number(element.get("epoch")) for element in found if element is not None), default=0)


def put_owner(domain: Any, record: OwnerRecord) -> None:
    """Leave the owner record on a domain, as `put` does."""
    element = ET.Element("owner", {"host": record.owner, "epoch": str(record.epoch)})
    _put(domain, ET.tostring(element, encoding="unicode"), _OWNER_PREFIX, OWNER_NAMESPACE)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def put(domain: Any, stamp: Stamp) -> None:
    """Stamp a domain that is active, if it is, and its stored definition. libvirtError when it cannot be done."""
    _put(domain, to_xml(stamp), _PREFIX, NAMESPACE)


def _put(domain: Any, text: str, prefix: str, namespace: str) -> None:
    libvirt = module()
    stored = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, prefix, namespace, stored | live)


def take_off(domain: Any, operation: str) -> bool:
    """Remove the stamp of this operation, and no other, from a domain; True when there was one."""
    libvirt = module()
    found = False
    inactive = ((libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_XML_INACTIVE),) if domain.isPersistent() else ()
    active = ((libvirt.VIR_DOMAIN_AFFECT_LIVE, 0),) if domain.isActive() else ()
    for target, which in (*active, *inactive):
        stamp = from_domain_xml(domain.XMLDesc(which))
        if stamp is None or stamp.operation != operation:
            continue
        try:
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, _PREFIX, NAMESPACE, target)
        except libvirt.libvirtError as error:
            if code(error) != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise
        found = True
    return found
