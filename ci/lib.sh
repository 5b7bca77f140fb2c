# Shared by the scripts in this folder; sourced, never run.
# shellcheck shell=bash disable=SC2034

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

# Exit codes: those of the refimpl command (see its help) that can occur before it exists.
readonly E_USAGE=2 E_REFUSED=3 E_ENVIRONMENT=8

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# die CODE TEXT...: one message per line to stderr, then exit.
die() {
    local code=$1
    shift
    printf '%s\n' "${0##*/}: $1" >&2
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit "$code"
}

# take_yes ARGS...: sets agreed=(--yes) when that flag is among ARGS, rest=(the others).
take_yes() {
    local arg
    agreed=() rest=()
    for arg in "$@"; do
        if [[ $arg == --yes ]]; then agreed=(--yes); else rest+=("$arg"); fi
    done
}
