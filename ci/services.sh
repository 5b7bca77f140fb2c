# Keeps packages from starting services while they are installed, and leaves no trace of having done so; sourced.
# Debian asks /usr/sbin/policy-rc.d before it starts anything. A file of the machine's own is moved aside and moved back.
# shellcheck shell=bash

readonly policy_mark='# put here by refimpl ci/setup for the time of an installation'

# hold_services FILE: from now on policy-rc.d forbids every start. Whatever an interrupted run left is put right first.
hold_services() {
    release_services "$1"
    if [[ -e $1 || -L $1 ]]; then mv -- "$1" "$1.refimpl-saved"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$1"
    chmod 755 -- "$1"
}

# release_services FILE: the state before hold_services again. Safe to call at any time and twice.
release_services() {
    if [[ -f $1 && ! -L $1 ]] && grep -qxF -- "$policy_mark" "$1"; then rm -f -- "$1"; fi
    if [[ -e $1.refimpl-saved || -L $1.refimpl-saved ]]; then mv -- "$1.refimpl-saved" "$1"; fi
}

# enabled_units: the links by which systemd starts something at boot, one a line.
enabled_units() { find /etc/systemd/system -type l -path '*.wants/*' 2>/dev/null | sort || true; }

# disable_new_units BEFORE: of the virtualization services enabled since BEFORE (an earlier list), enables none at boot.
disable_new_units() {
    local unit
    comm -13 <(printf '%s\n' "$1") <(enabled_units) | sed 's,.*/,,' | grep -E '^(libvirt|virt(lock|log))' | sort -u |
        while read -r unit; do systemctl --quiet disable "$unit" 2>/dev/null || rm -f /etc/systemd/system/*.wants/"$unit"; done
}
