"""What ci/setup decides, for machines of every sort; nothing is installed here."""

from pathlib import Path

import pytest

from tests.unit.ci.machine import ROOT, Machine, everything

SYSTEMS = ["debian-12", "debian-13", "ubuntu-24.04"]


def without(packages: dict[str, str], *names: str) -> dict[str, str]:
    return {name: version for name, version in packages.items() if name not in names}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_empty_machine_gets_everything(tmp_path: Path, system: str) -> None:
    done = Machine(tmp_path, system).plan()
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("decision: install\n")
    to_install = next(line for line in done.stdout.splitlines() if line.startswith("To install"))
    assert {"libvirt-daemon", "libvirt-daemon-driver-qemu", "qemu-system-x86", "python3-venv"} <= set(
        to_install.split()
    )
    assert ("bookworm-backports" in done.stdout) == (system == "debian-12")
    assert ("not run there" in done.stdout) == (system == "ubuntu-24.04")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_machine_that_has_everything_is_ready_even_while_guests_run_and_without_root(
    tmp_path: Path, system: str
) -> None:
    machine = Machine(tmp_path, system, uid=1000)
    machine.has(everything(system))
    machine.runs(["libvirtd", "qemu-system-x86"])
    done = machine.plan()
    assert (done.returncode, done.stdout) == (0, "decision: ready\n")
    assert machine.read("apt.log") == ""


def test_without_root_it_says_exactly_what_to_run(tmp_path: Path) -> None:
    done = Machine(tmp_path, uid=1000).plan()
    assert done.returncode == 8
    assert f"  sudo {ROOT}/ci/setup\n" in done.stdout
    assert done.stdout.endswith("decision: needs-root\n")


def test_another_libvirt_stops_it_with_the_versions_before_and_after(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.has({"libvirt0": "9.0.0-4+deb12u2", "qemu-system-x86": "1:7.2+dfsg-7"})
    machine.write("madison", " libvirt0 | 11.3.0-2~bpo12+1 | mirror\n qemu-system-x86 | 1:7.2+dfsg-7 | mirror\n")
    done = machine.plan()
    assert done.returncode == 3
    assert "libvirt0 9.0.0-4+deb12u2 -> 11.3.0-2~bpo12+1\n" in done.stdout
    assert "qemu-system-x86 1:7.2+dfsg-7 -> 1:10 or later\n" in done.stdout
    assert "--change-libvirt" in done.stdout
    assert done.stdout.endswith("decision: stop\n")
    assert machine.plan("--change-libvirt").stdout.endswith("decision: install\n")


def test_an_old_libvirt_that_set_up_itself_installed_is_upgraded(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.has({**everything("debian-12"), "libvirt0": "9.0.0-4"})
    assert machine.plan().returncode == 3
    machine.write("var/lib/refimpl/setup.list", "libvirt0 9.0.0-4\n")
    done = machine.plan()
    assert done.returncode == 0
    assert "To upgrade: libvirt0 9.0.0-4 -> 11 or later\n" in done.stdout
    assert "To install" not in done.stdout


@pytest.mark.parametrize("running", [["qemu-system-x86", "qemu-system-x86"], ["virtqemud"], ["libvirtd"], ["kvm"]])
def test_running_guests_or_daemons_stop_a_change_of_libvirt(tmp_path: Path, running: list[str]) -> None:
    machine = Machine(tmp_path)
    machine.has(without(everything("debian-12"), "libvirt-daemon-plugin-lockd"))
    machine.runs([*running, "bash"])
    done = machine.plan()
    assert done.returncode == 3
    assert f"{running[0]} ({len(running)})\n" in done.stdout
    assert done.stdout.endswith("decision: stop\n")
    assert machine.plan("--change-libvirt").stdout.endswith("decision: install\n")


def test_running_guests_do_not_stop_what_does_not_touch_them(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.has(without(everything("debian-12"), "zstd"))
    machine.runs(["qemu-system-x86"])
    done = machine.plan()
    assert done.returncode == 0
    assert "To install, with what they need: zstd\n" in done.stdout
    assert "backports" not in done.stdout


def test_the_same_libvirt_put_there_by_hand_is_no_reason_to_stop(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.has(without(everything("debian-12"), "libvirt-dev"))
    machine.runs(["virtlogd"])
    assert machine.plan().stdout.endswith("decision: install\n")


@pytest.mark.parametrize("system", ["fedora-40", "debian-11", "ubuntu-22.04"])
def test_an_unknown_system_gets_the_list_of_programs(tmp_path: Path, system: str) -> None:
    done = Machine(tmp_path, system).plan()
    assert done.returncode == 8
    assert "qemu-system-x86_64 and qemu-img >= 8.2" in done.stdout
    assert f"{ROOT}/ci/setup --skip-packages" in done.stdout
    assert done.stdout.endswith("decision: unsupported\n")


def test_a_system_that_does_not_say_what_it_is_is_unknown(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "etc/os-release").unlink()
    assert machine.plan().stdout.endswith("decision: unsupported\n")


def test_an_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    done = Machine(tmp_path).plan("--frobnicate")
    assert done.returncode == 2
    assert done.stdout.startswith("Usage: ci/setup")


def test_without_packages_a_plan_needs_no_root_and_makes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "fedora-40", uid=1000)
    done = machine.setup("--plan", scope="--skip-packages")
    assert (done.returncode, done.stdout) == (0, "decision: ready\n")
    assert machine.read("apt.log") == ""
