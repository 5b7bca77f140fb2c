"""Control connections of a lab: who has a good certificate is let in, nobody else; and wrong hosts are not believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from refimpl.lab import CertificateKind, Lab, create
from refimpl.lab import certificates as pki
from refimpl.lab.certificates import Authority, Validity
from tests.healing import Healing
from tests.lab.lab_support import healthy, run_on, start_vm, state_directory, virsh

pytestmark = pytest.mark.lab

SPAN = Validity.around(pki.now())


@contextmanager
def made() -> Iterator[Lab]:
    with state_directory() as root:
        yield create(root=root)


@pytest.fixture(scope="module")
def labs() -> Iterator[Healing[Lab]]:
    with closing(Healing("the lab of this module", made, healthy)) as labs:
        yield labs


@pytest.fixture
def lab(labs: Healing[Lab], request: pytest.FixtureRequest) -> Iterator[Lab]:
    with labs.lent(request.node) as lab:
        yield lab


@pytest.fixture
def second_host(lab: Lab) -> Iterator[str]:
    yield "h2"
    lab.replace_certificate("h2", CertificateKind.GOOD)


def uri(lab: Lab, host: str, pkipath: Path | None = None) -> str:
    entry = lab.group.host(host)
    assert entry is not None
    return f"{entry.peer_uri}?pkipath={pkipath}" if pkipath else entry.control_uri


def test_the_conductor_reaches_both_hosts_from_the_management_network(lab: Lab) -> None:
    assert [virsh(lab, uri(lab, h)) for h in ("h1", "h2")] == [(True, "h1"), (True, "h2")]


def test_hosts_reach_each_other_with_their_own_certificate(lab: Lab) -> None:
    for here, there in (("h1", "h2"), ("h2", "h1")):
        entry = lab.group.host(there)
        assert entry is not None
        assert virsh(lab, entry.peer_uri, here) == (True, there)
        assert virsh(lab, f"qemu+tls://{there}/system", here) == (True, there)


def test_nothing_listens_without_tls(lab: Lab) -> None:
    listening = run_on(lab, "h1", "cat", "/proc/net/tcp", "/proc/net/tcp6")
    ports = {int(line.split()[1].rsplit(":", 1)[1], 16) for line in listening.splitlines() if " 0A " in line}
    assert ports == {16514}


def test_without_a_client_certificate_the_conductor_is_refused(lab: Lab, tmp_path: Path) -> None:
    pki.write_files(tmp_path, {"cacert.pem": (lab.paths.conductor_pki / "cacert.pem").read_bytes()})
    answered, said = virsh(lab, uri(lab, "h1", tmp_path))
    assert not answered, said


@pytest.mark.parametrize(
    ("name", "issuer", "span"),
    [
        ("conductor", "another", SPAN),
        ("somebody", "own", SPAN),
        ("conductor", "own", Validity.expired(pki.now())),
    ],
    ids=["another-authority", "not-a-member", "expired"],
)
def test_a_client_certificate_that_is_not_good_is_refused(
    lab: Lab, tmp_path: Path, name: str, issuer: str, span: Validity
) -> None:
    own = Authority.load(lab.paths.authority)
    authority = own if issuer == "own" else Authority.create(lab.id, SPAN)
    pair = authority.issue(lab.id, name, ["10.90.0.1"], span)
    pki.write_files(tmp_path, pki.client_files(own.pair.certificate, pair))
    answered, said = virsh(lab, uri(lab, "h1", tmp_path))
    assert not answered, said
    good = own.issue(lab.id, "conductor", ["10.90.0.1"], SPAN)
    pki.write_files(tmp_path, pki.client_files(own.pair.certificate, good))
    assert virsh(lab, uri(lab, "h1", tmp_path)) == (True, "h1")


@pytest.mark.parametrize(
    ("kind", "word"),
    # libvirt has no word of its own for an expired certificate.
    [(CertificateKind.EXPIRED, "not trusted"), (CertificateKind.OTHER_NAME, "match")],
)
def test_a_host_with_a_wrong_certificate_is_believed_by_nobody_and_gets_in_nowhere(
    lab: Lab, second_host: str, kind: CertificateKind, word: str
) -> None:
    lab.replace_certificate(second_host, kind)
    for asker in (None, "h1"):
        address = uri(lab, "h2") if asker is None else "qemu+tls://10.90.0.12/system"
        answered, said = virsh(lab, address, asker)
        assert not answered
        assert word in said, said
    answered, said = virsh(lab, "qemu+tls://10.90.0.11/system", "h2")
    assert not answered, said
    assert [s.libvirtd_answers for s in lab.status()] == [True, False]
    lab.replace_certificate(second_host, CertificateKind.GOOD)
    assert all(s.healthy for s in lab.status())


def test_running_vms_outlive_a_change_of_certificate(lab: Lab, second_host: str) -> None:
    start_vm(lab, second_host, "steady")
    lab.replace_certificate(second_host, CertificateKind.EXPIRED)
    lab.replace_certificate(second_host, CertificateKind.GOOD)
    assert run_on(lab, second_host, "virsh", "-q", "domstate", "steady").strip() == "running"
    run_on(lab, second_host, "virsh", "-q", "destroy", "steady")


def test_private_keys_are_readable_by_their_owner_only(lab: Lab) -> None:
    keys = [p for p in lab.paths.directory.rglob("*.pem") if b"PRIVATE KEY" in p.read_bytes()]
    assert len(keys) == 2 * 4 + 2
    assert {p.stat().st_mode & 0o777 for p in keys} == {0o600}
