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

# part NAME COMMAND...: runs it, prints what it took, remembers a failure in failed=().
failed=()
part() {
    local name=$1 status=0 started=$SECONDS
    shift
    say "== $name"
    "$@" || status=$?
    if ((status == 0)); then
        say "== $name: passed ($((SECONDS - started)) s)"
    else
        say "== $name: FAILED with exit code $status ($((SECONDS - started)) s)"
        failed+=("$name")
    fi
}

# ends: exits with 1 and the names of the parts that failed, if any did.
ends() { ((!${#failed[@]})) || die 1 "failed: $(printf '%s; ' "${failed[@]}")"; }

# select_tests ARGS...: sets marks=EXPRESSION (of -m) and user=(the other arguments for pytest), filtered=yes when any was given.
select_tests() {
    marks='' user=() filtered=no
    while (($#)); do
        case $1 in
        -m)
            (($# > 1)) || die "$E_USAGE" "-m needs an expression"
            marks=$2 && shift
            ;;
        -m?*) marks=${1#-m} ;;
        *) user+=("$1") ;;
        esac
        shift
    done
    # Only a selection that the user made may come out empty in a part.
    if [[ $marks ]] || ((${#user[@]})); then filtered=yes; fi
}

# tests NAME MARKS ARGS...: the tests of these marks among those that select_tests was told; JUnit goes to $results.
tests() {
    local name=$1 selection="$2${marks:+ and ($marks)}" status=0 none=5
    shift 2
    python -m pytest -m "$selection" --junitxml="$results/$name.xml" "$@" "${user[@]}" || status=$?
    if ((status == none)) && [[ $filtered == yes ]]; then say "no $name test was selected"; return 0; fi
    return "$status"
}

# inside: goes to the checkout with its environment and an empty folder for results, and says what machine this is.
inside() {
    cd -- "$root"
    export PATH=$root/.venv/bin:$PATH:/usr/sbin:/sbin
    readonly results=$root/test-results
    rm -rf -- "$results"
    mkdir -p "$results"
    SECONDS=0
    python ci/figures.py machine
}
