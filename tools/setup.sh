#!/bin/sh
# Make .venv with everything that is pinned, and the project in it, editable. `make` calls this; so may you.
#   tools/setup.sh python     the environment and the pins
#   tools/setup.sh project    the project itself; needs no network
#   tools/setup.sh bench      what `make bench` needs besides
# PYTHON=... names the interpreter; without it the first of python3, python3.14 ... python3.11 that will do is taken.
set -eu

venv=.venv
pip="$venv/bin/python -m pip --disable-pip-version-check"

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    without_venv=
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        new_enough "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        package=$("$without_venv" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
        echo "error: $without_venv cannot make virtual environments: its module 'venv' or 'ensurepip' is missing." >&2
        echo "       On Debian and Ubuntu: apt-get install python3-venv   (or $package)" >&2
    else
        echo "error: no Python 3.11 or newer among: ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}" >&2
        echo "       Install one, or name it: make PYTHON=/path/to/python3" >&2
    fi
    return 1
}

case ${1-} in
python)
    if [ -n "${PYTHON-}" ] || ! new_enough "$venv/bin/python"; then
        python=$(find_python)
        "$python" -m venv --clear "$venv"
    fi
    printf '%-9s %s\n' setup "$venv, $("$venv/bin/python" --version), packages of requirements/dev.txt"
    # --no-deps: the file names every package, and pip may ask for an extra of one that has none in it.
    $pip install --quiet --no-deps --require-hashes --only-binary :all: --requirement requirements/dev.txt
    ;;
project)
    $pip install --quiet --no-deps --no-build-isolation --no-index --editable .
    ;;
bench)
    printf '%-9s %s\n' setup 'packages of requirements/bench.txt'
    $pip install --quiet --no-deps --require-hashes --only-binary :all: --no-binary pysyncobj \
        --requirement requirements/bench.txt
    ;;
*)
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
    ;;
esac
