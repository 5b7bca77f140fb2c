"""The certificates of a host, read where its daemons read them: libvirt's control connection and QEMU's channel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from refimpl.hosts.channel import HostChannel
from refimpl.model.facts import CertificateFact
from refimpl.model.group import HostEntry

_SETTING = re.compile(r'^\s*(\w+)\s*=\s*"([^"]*)"', re.MULTILINE)
_LIBVIRT, _QEMU = "/etc/pki/libvirt", "/etc/pki/qemu"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one certificate of a host is, with its key and the authority that it has to be signed by."""

    role: str
    certificate: str
    key: str
    authority: str


Modes = Callable[[Sequence[str]], Mapping[str, int]]
"""Tells the permission bits of files on the host, by path; without those that are not there."""


def certificates(host: HostEntry, channel: HostChannel, modes: Modes) -> tuple[CertificateFact, ...]:
    """Return all certificates of a host that can be read. OSError when the host is down."""
    daemon, qemu = settings(channel, "libvirtd.conf"), settings(channel, "qemu.conf")
    looked_for = places(host, daemon, qemu)
    private = {path: bits & 0o077 == 0 for path, bits in modes([place.key for place in looked_for]).items()}
    found = (_fact(channel, place, private.get(place.key, False)) for place in looked_for)
    return tuple(fact for fact in found if fact is not None)


def places(host: HostEntry, daemon: Mapping[str, str], qemu: Mapping[str, str]) -> tuple[Place, ...]:
    """Return where the certificates are, by the settings of libvirtd.conf and qemu.conf and by libvirt's defaults."""
    authority = daemon.get("ca_file", "/etc/pki/CA/cacert.pem")
    server = Place(
        "control-server",
        daemon.get("cert_file", f"{_LIBVIRT}/servercert.pem"),
        daemon.get("key_file", f"{_LIBVIRT}/private/serverkey.pem"),
        authority,
    )
    # A peer's URI may name a directory; the source's daemon, not the controller, looks there.
    own = parse_qs(urlsplit(host.peer_uri).query).get("pkipath", [None])[0]
    client = (
        Place("control-client", f"{own}/clientcert.pem", f"{own}/clientkey.pem", f"{own}/cacert.pem")
        if own
        else Place("control-client", f"{_LIBVIRT}/clientcert.pem", f"{_LIBVIRT}/private/clientkey.pem", authority)
    )
    channel = qemu.get("migrate_tls_x509_cert_dir") or qemu.get("default_tls_x509_cert_dir") or _QEMU
    return (server, client, *(_qemu_place(channel, end) for end in ("server", "client")))


def _qemu_place(directory: str, end: str) -> Place:
    files = (f"{directory}/{end}-cert.pem", f"{directory}/{end}-key.pem", f"{directory}/ca-cert.pem")
    return Place(f"migration-{end}", *files)


def settings(channel: HostChannel, name: str) -> Mapping[str, str]:
    """Return the settings of a daemon's file that are one text each. OSError when the host is down."""
    try:
        return dict(_SETTING.findall(channel.read(f"/etc/libvirt/{name}").decode()))
    except FileNotFoundError:
        return {}


def _fact(channel: HostChannel, place: Place, key_private: bool) -> CertificateFact | None:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(channel.read(place.certificate))
    except (FileNotFoundError, PermissionError, ValueError):
        return None
    return CertificateFact(
        role=place.role,
        names=_names(certificate),
        not_before_s=certificate.not_valid_before_utc.timestamp(),
        not_after_s=certificate.not_valid_after_utc.timestamp(),
        trusted=_trusted(channel, certificate, place.authority),
        key_private=key_private,
    )


def _names(certificate: Any) -> tuple[str, ...]:
    from cryptography import x509

    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(attribute.value) for attribute in common)
    names = alternative.get_values_for_type(x509.DNSName)
    return (*names, *(str(a) for a in alternative.get_values_for_type(x509.IPAddress)))


def _trusted(channel: HostChannel, certificate: Any, authority: str) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        issuer = x509.load_pem_x509_certificate(channel.read(authority))
        certificate.verify_directly_issued_by(issuer)
    except (FileNotFoundError, PermissionError, ValueError, TypeError, InvalidSignature):
        return False
    return True
