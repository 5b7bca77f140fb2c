"""Flags, parameters, statistics, locks and certificates: the parts that can be seen without a host."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from refimpl.backends.libvirt import certificates, lease
from refimpl.backends.libvirt.progress import progress_values
from refimpl.backends.libvirt.transfer import bracketed, flags, parameters
from refimpl.hosts.channel import Completed
from refimpl.model.request import HandOver
from tests.unit.backends.libvirt.recorded import PLAN, FakeChannel, host

libvirt = pytest.importorskip("libvirt")


class XmlDomain:
    def XMLDesc(self, which: int) -> str:
        kind = "inactive" if which & libvirt.VIR_DOMAIN_XML_INACTIVE else "active"
        return (
            f"<domain><name>{kind}</name><devices><interface><source bridge='vmswitch'/></interface></devices></domain>"
        )


def chosen(plan: Any = PLAN, switch: str = "vmswitch") -> dict[str, Any]:
    return parameters(plan, XmlDomain(), host("h1"), host("h2", switch))


def test_a_strict_encrypted_move_arrives_paused_over_tls() -> None:
    strict = flags(PLAN)
    for wanted in ("LIVE", "PEER2PEER", "PERSIST_DEST", "UNDEFINE_SOURCE", "PAUSED", "TLS"):
        assert strict & getattr(libvirt, f"VIR_MIGRATE_{wanted}"), wanted
    assert not flags(replace(PLAN, encryption=False)) & libvirt.VIR_MIGRATE_TLS
    assert not flags(replace(PLAN, hand_over=HandOver.DELEGATED)) & libvirt.VIR_MIGRATE_PAUSED


def test_the_peer_has_to_prove_its_name() -> None:
    where = {"migrate_uri": "tcp://192.0.2.12", "listen_address": "192.0.2.12"}
    found = chosen()
    assert {name: found[name] for name in found if not name.endswith("_xml")} == {**where, "tls.destination": "h2"}
    assert "tls.destination" not in chosen(replace(PLAN, encryption=False))


def test_a_bandwidth_is_given_on_and_zero_is_unlimited() -> None:
    assert "bandwidth" not in chosen()
    assert chosen(replace(PLAN, bandwidth_mib_s=3))["bandwidth"] == 3


def test_a_host_that_needs_edits_gets_them_live_and_stored() -> None:
    edited = chosen(switch="other")
    assert "<name>active</name>" in edited["destination_xml"]
    assert "<name>inactive</name>" in edited["persistent_xml"]
    assert "other" in edited["persistent_xml"]


def test_an_address_of_version_6_is_bracketed() -> None:
    assert (bracketed("2001:db8::1"), bracketed("192.0.2.1")) == ("[2001:db8::1]", "192.0.2.1")
    found = chosen(replace(PLAN, networks=("2001:db8::1",)))
    assert (found["migrate_uri"], found["listen_address"]) == ("tcp://[2001:db8::1]", "2001:db8::1")


def test_the_dirty_rate_is_in_pages() -> None:
    native = {
        "memory_total": 100,
        "memory_remaining": 40,
        "memory_processed": 70,
        "memory_dirty_rate": 3,
        "memory_page_size": 4096,
        "memory_bps": 9,
    }
    expected = {"total_bytes": 100, "remaining_bytes": 40, "sent_bytes": 70, "dirty_bytes_s": 12288, "bytes_s": 9}
    assert progress_values(native) == expected


LOCKS = """1: POSIX  ADVISORY  WRITE 49 fe:00:77 0 EOF
1: -> POSIX  ADVISORY  WRITE 60 fe:00:77 0 EOF
2: OFDLCK ADVISORY  WRITE -1 fe:00:77 201 201
3: POSIX  ADVISORY  READ 50 fe:00:77 0 EOF
4: POSIX  ADVISORY  WRITE 51 fe:00:78 0 EOF
"""


def test_only_a_write_lock_on_that_file_counts() -> None:
    assert lease.holders(LOCKS, os.makedev(0xFE, 0), 77) == [49]
    assert lease.holders(LOCKS, os.makedev(0xFE, 1), 77) == []


@pytest.mark.parametrize(("holder", "held"), [("virtlockd", True), ("qemu-system-x86", False), (None, False)])
def test_the_lease_is_held_by_the_lock_daemon_only(holder: str | None, held: bool) -> None:
    files = {"/proc/locks": LOCKS.encode()}
    if holder:
        files["/proc/49/comm"] = f"{holder}\n".encode()
    device = os.makedev(0xFE, 0)
    channel = FakeChannel(files, {"stat": Completed(0, f"{device} 77\n", "")})
    assert lease.held(channel, "/leases/x") is held


def test_a_lease_that_cannot_be_seen_is_neither_held_nor_free() -> None:
    assert lease.held(FakeChannel(answers={"stat": Completed(1, "", "no such file")}), "/leases/x") is None
    down = FakeChannel()
    down.down = True
    assert lease.held(down, "/leases/x") is None
    assert lease.daemon_alive(down) is None


def test_the_lock_daemon_lives_when_its_pid_is_its_own() -> None:
    alive = {"/run/virtlockd.pid": b"49", "/proc/49/comm": b"virtlockd\n"}
    assert lease.daemon_alive(FakeChannel(alive))
    assert lease.daemon_alive(FakeChannel(alive | {"/proc/49/comm": b"bash\n"})) is False
    assert lease.daemon_alive(FakeChannel()) is False


def test_certificates_are_where_the_settings_say() -> None:
    plain = {p.role: p for p in certificates.places(host("h1"), {}, {})}
    assert plain["control-server"].key == "/etc/pki/libvirt/private/serverkey.pem"
    assert plain["migration-client"].certificate == "/etc/pki/qemu/client-cert.pem"
    own = replace(host("h1"), peer_uri="qemu+tls://h1/system?pkipath=/own")
    qemu = {"default_tls_x509_cert_dir": "/d", "migrate_tls_x509_cert_dir": "/m"}
    moved = {p.role: p for p in certificates.places(own, {"cert_file": "/c.pem", "ca_file": "/ca.pem"}, qemu)}
    assert (moved["control-server"].certificate, moved["control-server"].authority) == ("/c.pem", "/ca.pem")
    assert moved["control-client"].authority == "/own/cacert.pem"
    assert moved["migration-server"].authority == "/m/ca-cert.pem"


def test_certificates_are_read_with_names_time_trust_and_key() -> None:
    pki = pytest.importorskip("refimpl.lab.certificates")
    now = datetime.now(UTC)
    authority = pki.Authority.create("0a1b2c", pki.Validity.around(now))
    stranger = pki.Authority.create("0a1b2c", pki.Validity.around(now))
    good = authority.issue("0a1b2c", "h1", ["192.0.2.1"], pki.Validity.around(now))
    other = stranger.issue("0a1b2c", "h1", [], pki.Validity.expired(now))
    files = {
        "/etc/pki/CA/cacert.pem": authority.pair.certificate,
        "/etc/pki/qemu/ca-cert.pem": authority.pair.certificate,
        "/etc/pki/libvirt/servercert.pem": good.certificate,
        "/etc/pki/qemu/server-cert.pem": other.certificate,
        "/etc/pki/qemu/client-cert.pem": b"not a certificate",
    }
    channel = FakeChannel(files)
    found = {c.role: c for c in certificates.certificates(host("h1"), channel, all_of(0o600))}
    assert set(found) == {"control-server", "migration-server"}
    server = found["control-server"]
    assert (server.names, server.trusted, server.key_private) == (("h1", "192.0.2.1"), True, True)
    assert server.not_before_s <= now.timestamp() <= server.not_after_s
    assert not found["migration-server"].trusted
    assert found["migration-server"].not_after_s < (now - timedelta(minutes=1)).timestamp()
    for bits in (0o644, 0o640, 0o604):
        assert not certificates.certificates(host("h1"), channel, all_of(bits))[0].key_private
    assert not certificates.certificates(host("h1"), channel, lambda _: {})[0].key_private


def all_of(bits: int) -> certificates.Modes:
    return lambda paths: dict.fromkeys(paths, bits)
