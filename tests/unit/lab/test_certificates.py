"""The lab's certificates name what they should, are believed only by their own lab, and keys stay private."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from refimpl.lab import certificates
from refimpl.lab.certificates import Authority, KeyPair, Validity

NOW = certificates.now()
SPAN = Validity.around(NOW)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("abc123", SPAN)


def issue(authority: Authority, span: Validity = SPAN) -> KeyPair:
    return authority.issue("abc123", "h1", ["10.90.0.11", "10.90.1.11"], span)


def shake_hands(directory: Path, server: KeyPair, client: KeyPair, believed: Authority, name: str) -> None:
    """Do a mutual TLS handshake in memory; ssl.SSLError when one side refuses the other."""
    sides = []
    for kind, pair in ((ssl.Purpose.CLIENT_AUTH, server), (ssl.Purpose.SERVER_AUTH, client)):
        place = directory / kind.shortname
        certificates.write_files(place, certificates.client_files(believed.pair.certificate, pair))
        context = ssl.create_default_context(kind, cafile=str(place / "cacert.pem"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(place / "clientcert.pem", place / "clientkey.pem")
        sides.append(context)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    listening = sides[0].wrap_bio(up, down, server_side=True)
    connecting = sides[1].wrap_bio(down, up, server_hostname=name)
    for _ in range(6):
        for side in (connecting, listening):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert connecting.getpeercert()
    assert listening.getpeercert()


@pytest.mark.parametrize("name", ["h1", "10.90.0.11", "10.90.1.11"])
def test_a_host_is_believed_by_every_name_it_has(authority: Authority, tmp_path: Path, name: str) -> None:
    shake_hands(tmp_path, issue(authority), issue(authority), authority, name)


def test_a_host_is_not_believed_by_another_name(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(tmp_path, issue(authority), issue(authority), authority, "h2")


def test_an_expired_certificate_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(tmp_path, issue(authority, Validity.expired(NOW)), issue(authority), authority, "h1")


def test_another_labs_certificate_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create("def456", SPAN)
    with pytest.raises(ssl.SSLError, match="verify failed"):
        shake_hands(tmp_path, issue(authority), issue(other), authority, "h1")


def test_validity_begins_an_hour_ago_and_lasts_thirty_days(authority: Authority) -> None:
    assert SPAN.end - SPAN.begin == timedelta(days=30, hours=1)
    assert SPAN.begin == NOW - timedelta(hours=1)


def test_usage_permits_what_qemu_and_libvirt_ask_for(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(issue(authority).certificate)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment
    assert not usage.key_cert_sign


def test_each_host_has_a_key_of_its_own(authority: Authority) -> None:
    assert issue(authority).key != issue(authority).key


def test_an_authority_is_read_back_and_issues_what_the_first_believes(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path / "ca")
    again = Authority.load(tmp_path / "ca")
    shake_hands(tmp_path, issue(again), issue(authority), authority, "h1")


def test_keys_are_readable_by_their_owner_only_also_when_replaced(authority: Authority, tmp_path: Path) -> None:
    pair = issue(authority)
    certificates.write_files(tmp_path / "pki", certificates.host_files(authority.pair.certificate, pair))
    newer = issue(authority)
    certificates.write_files(tmp_path / "pki", certificates.host_files(authority.pair.certificate, newer))
    keys = [p for p in (tmp_path / "pki").rglob("*") if p.is_file() and b"PRIVATE" in p.read_bytes()]
    assert len(keys) == 4
    assert {p.stat().st_mode & 0o777 for p in keys} == {0o600}
    assert {p.read_bytes() for p in keys} == {newer.key}
    assert (tmp_path / "pki/libvirt/private").stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "pki").rglob("*.new"))


def test_an_authority_needs_its_kind_of_key(authority: Authority) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="elliptic"):
        Authority(KeyPair(authority.pair.certificate, key))
