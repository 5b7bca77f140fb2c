"""The lab's own certificate authority, and the certificates of its hosts and its conductor.

A host has one key pair, used as libvirt's and QEMU's server and client. Its certificate names the host and all its
addresses, and is valid from an hour ago, so that small differences between clocks do no harm. Keys are readable by
their owner only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from refimpl.hosts.command import replace_file

VALID_DAYS = 30
CLOCK_MARGIN = timedelta(hours=1)

_CERTIFICATE_MODE = 0o644
_KEY_MODE = 0o600


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid."""

    begin: datetime
    end: datetime

    @classmethod
    def around(cls, now: datetime) -> Validity:
        """Return the usual span: from an hour before `now`, for `VALID_DAYS` days."""
        return cls(now - CLOCK_MARGIN, now + timedelta(days=VALID_DAYS))

    @classmethod
    def expired(cls, now: datetime) -> Validity:
        """Return a span of a day that ended an hour before `now`."""
        return cls(now - CLOCK_MARGIN - timedelta(days=1), now - CLOCK_MARGIN)


class Authority:
    """Issues certificates that the lab's members believe."""

    def __init__(self, pair: KeyPair) -> None:
        """Use this certificate and key."""
        key = serialization.load_pem_private_key(pair.key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is not an elliptic curve key")
        self.pair = pair
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)

    @classmethod
    def create(cls, lab_id: str, validity: Validity) -> Authority:
        """Make a new authority for one lab."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(lab_id, "authority")
        builder = _builder(name, name, key, key, validity).add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        return cls(_pair(builder.sign(key, hashes.SHA256()), key))

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Read an authority that `save` wrote; OSError or ValueError when it is not there."""
        certificate, key = directory / "cacert.pem", directory / "cakey.pem"
        return cls(KeyPair(certificate.read_bytes(), key.read_bytes()))

    def save(self, directory: Path) -> None:
        """Write certificate and key below a directory that only its owner can read."""
        write_files(directory, {"cacert.pem": self.pair.certificate, "cakey.pem": self.pair.key})

    def issue(self, lab_id: str, name: str, addresses: Sequence[str], validity: Validity) -> KeyPair:
        """Issue a certificate for server and client use that names a host and its IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        builder = _builder(_name(lab_id, name), self._certificate.subject, key, self._key, validity)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return _pair(builder.sign(self._key, hashes.SHA256()), key)


def now() -> datetime:
    """Return the present time, with its zone."""
    return datetime.now(UTC)


def host_files(authority: bytes, pair: KeyPair) -> Mapping[str, bytes]:
    """Return the files of a host's /etc/pki, for libvirt and for QEMU, by path below it."""
    return {
        "CA/cacert.pem": authority,
        "libvirt/servercert.pem": pair.certificate,
        "libvirt/clientcert.pem": pair.certificate,
        "libvirt/private/serverkey.pem": pair.key,
        "libvirt/private/clientkey.pem": pair.key,
        "qemu/ca-cert.pem": authority,
        "qemu/server-cert.pem": pair.certificate,
        "qemu/client-cert.pem": pair.certificate,
        "qemu/server-key.pem": pair.key,
        "qemu/client-key.pem": pair.key,
    }


def client_files(authority: bytes, pair: KeyPair) -> Mapping[str, bytes]:
    """Return the files of a client's directory as libvirt's `pkipath` wants them."""
    return {"cacert.pem": authority, "clientcert.pem": pair.certificate, "clientkey.pem": pair.key}


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write certificates and keys below a directory; what is there is replaced, a key never has a wide mode."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, data, _KEY_MODE if b"PRIVATE KEY" in data else _CERTIFICATE_MODE)


def _name(lab_id: str, common_name: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"refimpl lab {lab_id}")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    validity: Validity,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    # Strict verifiers, such as Python's from 3.13 on, want both keys identified.
    identified = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issued = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(identified, critical=False).add_extension(issued, critical=False)
    return builder.not_valid_before(validity.begin).not_valid_after(validity.end)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    # QEMU and libvirt before 11.6 refuse a certificate whose usage does not permit key encipherment.
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), encoded)
