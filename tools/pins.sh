#!/bin/sh
# requirements/*.txt anew from requirements/*.in: every package pinned and hashed, for Python 3.11 to 3.14, with no
# address in it. `make pins UPGRADE=1` moves all pins; without it only what the .in files ask for moves.
set -eu

uv=build/uv
[ -x "$uv/bin/uv" ] || {
    python3 -m venv "$uv"
    "$uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
}
for name in dev bench; do
    "$uv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header --no-annotate ${UPGRADE:+--upgrade} "requirements/$name.in" --output-file "requirements/$name.txt"
done
