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

# enabled_units BASE: the links by which systemd starts something at boot, one a line; BASE stands before /etc.
enabled_units() { find "$1/etc/systemd/system" -type l -path '*.wants/*' 2>/dev/null | sort || true; }

# disable_new_units BASE BEFORE: takes back the links of virtualization services that are not in BEFORE, an earlier list.
disable_new_units() {
    local link
    while read -r link; do
        case ${link##*/} in libvirt* | virtlock* | virtlog* | virt-guest*) rm -f -- "$link" ;; esac
    done < <(comm -13 <(printf '%s\n' "$2") <(enabled_units "$1"))
}
