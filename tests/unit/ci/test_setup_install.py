"""ci/setup while it installs: what it asks of apt, and that the machine is as it was afterwards, however it ends."""

from pathlib import Path

import pytest

from tests.unit.ci.machine import POLICY, RECORD, SOURCE, WANTS, Machine, everything

SIMULATION = "Inst libvirt0 (11.3.0-2~bpo12+1 Debian Backports [amd64])\nInst zstd [1.0] (1.5.4 Debian [amd64])\n"
OWN_POLICY = "#!/bin/sh\n# the machine's own\nexit 104\n"


def fresh(folder: Path, **options: int) -> Machine:
    machine = Machine(folder, **options)
    machine.write("simulation", SIMULATION)
    machine.write("after", "".join(f"installed {n} {v}\n" for n, v in everything("debian-12").items()))
    machine.write("install", "cp $base/after $base/dpkg\n")
    return machine


def test_it_installs_without_starting_anything_and_leaves_no_policy_behind(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    done = machine.setup("--yes")
    assert done.returncode == 0, done.stdout
    log = machine.read("apt.log")
    assert "policy 101\n" in log
    install = [line for line in log.splitlines() if " install " in line and "--simulate" not in line]
    assert len(install) == 1
    assert "--no-remove --no-install-recommends install" in install[0]
    assert "libvirt-daemon/bookworm-backports" in install[0]
    assert " zstd" in install[0]
    assert not (tmp_path / POLICY).exists()


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    machine.setup("--yes")
    machine.write("apt.log", "")
    done = machine.setup()
    assert (done.returncode, done.stdout, machine.read("apt.log")) == (0, "", "")


@pytest.mark.parametrize(("uid", "fetched"), [(0, True), (1000, False)])
def test_missing_package_lists_are_fetched_for_the_guests_kernel(tmp_path: Path, uid: int, fetched: bool) -> None:
    machine = Machine(tmp_path, uid=uid)
    machine.has(everything("debian-12"))
    next((tmp_path / "var/lib/apt/lists").iterdir()).unlink()
    assert machine.setup().returncode == 0
    assert (" update" in machine.read("apt.log")) == fetched


def test_the_source_names_the_mirror_that_the_machine_uses(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    machine.setup("--yes")
    assert machine.read(SOURCE).splitlines() == [
        "Types: deb",
        "URIs: http://mirror.example/debian/",
        "Suites: bookworm-backports",
        "Components: main",
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg",
    ]


def test_a_source_that_is_there_already_is_used(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    machine.write("targets", "bookworm http://a.example/\nbookworm-backports http://a.example/\n")
    assert machine.setup("--yes").returncode == 0
    assert not (tmp_path / SOURCE).exists()


def test_only_packages_that_were_not_there_before_are_recorded_as_ours(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    assert machine.setup("--yes").returncode == 0
    assert machine.read(RECORD) == "libvirt0 11.3.0-2\n"


ENDINGS = {
    "failure": "exit 100\n",
    "interrupt": "kill -INT $PPID\nsleep 0.1\n",
    "termination": "kill -TERM $PPID\nexit 0\n",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("own", [None, "file", "link"])
def test_the_machines_own_policy_is_back_exactly_as_it_was(tmp_path: Path, ending: str, own: str | None) -> None:
    machine = fresh(tmp_path)
    policy = tmp_path / POLICY
    if own == "file":
        machine.write(POLICY, OWN_POLICY).chmod(0o750)
    elif own == "link":
        policy.symlink_to(machine.write("elsewhere", OWN_POLICY))
    before = policy.lstat() if own else None
    machine.write("install", ENDINGS[ending])
    assert machine.setup("--yes").returncode != 0
    assert "policy 101\n" in machine.read("apt.log")
    if before is None:
        assert list(policy.parent.iterdir()) == []
        return
    after = policy.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert policy.read_text() == OWN_POLICY
    assert list(policy.parent.iterdir()) == [policy]


@pytest.mark.parametrize("own", [None, OWN_POLICY])
def test_what_a_killed_run_left_is_put_right_by_the_next(tmp_path: Path, own: str | None) -> None:
    machine = fresh(tmp_path)
    if own:
        machine.write(POLICY, own)
    machine.write("install", "kill -KILL $PPID\n")
    assert machine.setup("--yes").returncode == -9
    assert "exit 101" in machine.read(POLICY)
    machine.write("install", "cp $base/after $base/dpkg\n")
    assert machine.setup("--yes").returncode == 0
    assert [file.read_text() for file in (tmp_path / POLICY).parent.iterdir()] == ([own] if own else [])


def test_services_that_came_with_the_packages_do_not_start_at_boot_either(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    wants = tmp_path / WANTS
    wants.mkdir(exist_ok=True)
    (wants / "virtlogd.service").symlink_to("/lib/virtlogd")
    links = " ".join(f"$base/{WANTS}/{unit}" for unit in ("libvirtd.service", "virtlockd.socket", "cron.service"))
    machine.write("install", f"for link in {links}; do ln -s /lib/x $link; done; cp $base/after $base/dpkg\n")
    assert machine.setup("--yes").returncode == 0
    # What was enabled before, and what is none of ours, stays.
    assert sorted(link.name for link in wants.iterdir()) == ["cron.service", "virtlogd.service"]


def test_a_change_that_only_apt_knows_of_stops_it_and_takes_the_source_back(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    machine.write("simulation", "Inst libvirt-daemon-system [9.0.0-4] (11.3.0-2~bpo12+1 Debian [amd64])\n")
    done = machine.setup("--yes")
    assert done.returncode == 3
    assert "libvirt-daemon-system 9.0.0-4 -> 11.3.0-2~bpo12+1\n" in done.stdout
    assert "policy" not in machine.read("apt.log")
    assert not (tmp_path / SOURCE).exists()
    assert machine.setup("--yes", "--change-libvirt").returncode == 0


def test_it_asks_unless_told_or_in_ci(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    done = machine.setup()
    assert done.returncode == 3
    assert "--yes" in done.stdout
    assert machine.read("apt.log") == ""
    assert machine.setup(CI="true").returncode == 0


def test_what_is_tied_to_the_old_libvirt_changes_with_it_and_nothing_else(tmp_path: Path) -> None:
    machine = fresh(tmp_path)
    machine.has({"libvirt0": "9.0.0", "libvirt-daemon-system": "9.0.0", "libvirt-glib-1.0-0": "4.0.0"})
    place = "http://mirror.example/debian bookworm-backports/main amd64 Packages"
    machine.write("madison", f" libvirt0 | 11.3 | {place}\n libvirt-daemon-system | 11.3 | {place}\n")
    assert machine.setup("--yes", "--change-libvirt").returncode == 0
    asked = machine.read("apt.log").split()
    assert "libvirt-daemon-system/bookworm-backports" in asked
    assert not [argument for argument in asked if argument.startswith("libvirt-glib")]
