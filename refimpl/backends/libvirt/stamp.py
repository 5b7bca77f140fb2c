"""The mark that an operation leaves on the VM itself: enough to recover it when the journal is gone (rule 6).

It lives in the domain's metadata under a namespace of its own, live and in the stored definition, and travels with
the VM. CLEAN_UP takes it off again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt.connection import code, module
from refimpl.backends.libvirt.domain import parse
from refimpl.model.request import Plan

NAMESPACE = "urn:refimpl:operation:1"
_PREFIX = "refimpl"
_TAG = f"{{{NAMESPACE}}}operation"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which operation moves this VM, and by what plan."""

    operation: str
    plan: Plan


def to_xml(stamp: Stamp) -> str:
    """Return the element that is stored."""
    plan = stamp.plan
    values = {"id": stamp.operation, "source": plan.source, "destination": plan.destination}
    element = ET.Element("operation", values)
    element.text = json.dumps(plan.to_json(), sort_keys=True)
    return ET.tostring(element, encoding="unicode")


def from_domain_xml(xml: str) -> Stamp | None:
    """Return the stamp that a domain's XML carries; None when there is none or it cannot be read."""
    element = parse(xml).find(f"metadata/{_TAG}")
    if element is None:
        return None
    try:
        return Stamp(element.get("id", ""), Plan.from_json(json.loads(element.text or "")))
    except (ValueError, TypeError, KeyError):
        return None


def put(domain: Any, stamp: Stamp) -> None:
    """Stamp a domain that is active, if it is, and its stored definition. libvirtError when it cannot be done."""
    libvirt = module()
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, to_xml(stamp), _PREFIX, NAMESPACE, flags)


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
