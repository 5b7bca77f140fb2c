# What each known system needs, as one table; sourced by ci/setup.
# shellcheck shell=bash disable=SC2034

# Programs and versions, for systems that are not in the table.
readonly needed_programs=(
    "libvirtd and virtlockd >= 10.0, with the QEMU driver, the lockd plug-in and the development files"
    "qemu-system-x86_64 and qemu-img >= 8.2"
    "ip (iproute2), nft (nftables), nsenter and unshare (util-linux), modprobe (kmod)"
    "dnsmasq (the program, no service of it), and OVMF for VMs with UEFI"
    "gcc, the C library's headers with libc.a, pkg-config, zstd"
    "python3 >= 3.11 with venv and headers"
)

# These exist afterwards on every known system, or set-up says which does not.
readonly programs=(libvirtd virtlockd virsh qemu-system-x86_64 qemu-img ip nft dnsmasq nsenter unshare modprobe gcc zstd)

readonly common_packages=(
    iproute2 nftables util-linux kmod gcc libc6-dev pkg-config zstd ca-certificates dnsmasq-base ovmf
    python3 python3-venv python3-dev
    busybox-static dosfstools mtools syslinux # small; the tests make a guest of one's own from them
)
readonly libvirt_packages=(
    libvirt0 libvirt-common libvirt-daemon libvirt-daemon-common libvirt-daemon-log libvirt-daemon-driver-qemu
    libvirt-daemon-lock libvirt-daemon-plugin-lockd libvirt-clients libvirt-dev
)
readonly qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data qemu-utils)

# describe_system ID VERSION_ID: sets system, proven, packages, release (the extra suite that the packages in
# from_release come from, or nothing), least_libvirt and least_qemu (Debian versions). Returns 1 for an unknown system.
describe_system() {
    release='' from_release=()
    case $1-$2 in
    debian-12)
        system="Debian 12" proven=yes least_libvirt=11 least_qemu=1:10
        release=bookworm-backports
        # apt takes a dependency from the extra suite only when it is named here too.
        from_release=("${libvirt_packages[@]}" "${qemu_packages[@]}" seabios)
        packages=("${common_packages[@]}" "${from_release[@]}")
        ;;
    debian-13)
        system="Debian 13" proven=yes least_libvirt=11 least_qemu=1:10
        packages=("${common_packages[@]}" "${libvirt_packages[@]}" "${qemu_packages[@]}")
        ;;
    ubuntu-24.04)
        # Here virtlockd and its plug-in are part of libvirt-daemon.
        system="Ubuntu 24.04" proven=no least_libvirt=10 least_qemu=1:8.2
        packages=("${common_packages[@]}" libvirt0 libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-dev
            qemu-system-x86 qemu-utils)
        ;;
    *) return 1 ;;
    esac
}

# least_version PACKAGE: prints the lowest version that will do, or nothing.
least_version() {
    case $1 in
    libvirt*) printf %s "$least_libvirt" ;;
    qemu-*) printf %s "$least_qemu" ;;
    esac
}
