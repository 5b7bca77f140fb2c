# The Python environment: which interpreter, what goes in, when it has to be made anew; sourced by ci/setup.
# shellcheck shell=bash

# suitable PYTHON HEADERS: at least 3.11, can make environments and, when HEADERS is yes, build extensions.
suitable() {
    "$1" -c 'import ensurepip, os, sys, sysconfig, venv
headers = os.path.exists(sysconfig.get_path("include") + "/Python.h")
sys.exit(sys.version_info < (3, 11) or (sys.argv[1] == "yes" and not headers))' "$2" 2>/dev/null
}

# choose_python HEADERS: prints REFIMPL_PYTHON if set; else the distribution's where it will do, because it is the same
# under sudo; else the newest on PATH.
choose_python() {
    local candidate candidates=(/usr/bin/python3 python3.{14,13,12,11} python3)
    if [[ ${REFIMPL_PYTHON-} ]]; then candidates=("$REFIMPL_PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null && suitable "$candidate" "$1"; then command -v "$candidate"; return; fi
    done
    die "$E_ENVIRONMENT" "no Python >= 3.11 with venv (and its headers, where libvirt is) among: ${candidates[*]}" \
        "install one (on Debian: apt-get install python3-venv python3-dev), or name it in REFIMPL_PYTHON"
}

# make_environment: makes .venv unless the one that is there was made from the same things.
# shellcheck disable=SC2154  # root and venv are set by lib.sh and setup
make_environment() {
    local python libvirt headers=no extras=lab,report,test requirements=() stamp
    libvirt=$(pkg-config --modversion libvirt 2>/dev/null || true)
    # The binding is built from source and must not be newer than the library that it is built on.
    if [[ $libvirt ]]; then headers=yes extras+=,libvirt requirements=("libvirt-python<=$libvirt"); fi
    python=$(choose_python "$headers")
    stamp=$({ cat "$root/pyproject.toml"; say "$root $python $("$python" -V) $extras $libvirt"; } | sha256sum)
    exec 9<"$root"
    flock 9
    if [[ $(cat "$venv/.refimpl-stamp" 2>/dev/null) != "$stamp" ]]; then
        say "Making $venv with $python"
        "$python" -m venv --clear "$venv"
        (cd -- "$root" && "$venv/bin/python" -m pip install -q -e ".[$extras]" "${requirements[@]}") ||
            die 1 "pip could not install what refimpl needs (its account is above)"
        say "$stamp" >"$venv/.refimpl-stamp"
        # Made by root in somebody's checkout: theirs to use and to remove.
        if [[ $(id -u) == 0 && $(stat -c %u "$root") != 0 ]]; then chown -R --reference="$root" "$venv"; fi
    fi
    exec 9<&-
    say "setup: ready ($("$python" -V), libvirt ${libvirt:-not installed})"
}
