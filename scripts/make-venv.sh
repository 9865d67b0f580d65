#!/bin/sh
# make-venv.sh FOLDER: a virtual environment there with the project, editable, and all that development needs.
#
# The Python is $PYTHON if set, else 3.11 where there is one, else the newest from 3.10 on. An environment that is there
# and works is brought up to date rather than made anew. Touches FOLDER/.installed at the end.
set -eu

venv=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-}

works() {
    "$venv/bin/python" -I -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

if [ -n "$python" ] || ! works; then
    if [ -z "$python" ]; then
        found=$("$here/scripts/find-pythons.sh")
        python=$(printf '%s\n' "$found" | sed -n 's/^3\.11 //p')
        [ -n "$python" ] || python=$(printf '%s\n' "$found" | sed -n '$s/^[0-9.]* //p')
    fi
    if [ -z "$python" ]; then
        echo "No CPython from 3.10 on with the modules venv and ensurepip was found on the PATH, in /usr/bin," >&2
        echo "/usr/local/bin, or among pyenv's and uv's versions. Install one (Debian: apt-get install python3-venv)," >&2
        echo "or name it: make test PYTHON=/path/to/python3" >&2
        exit 2
    fi
    echo "Making $venv with $("$python" -V) ($python) …"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

echo "Installing into $venv what the project needs; the first time takes a minute or two …"
"$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
    --constraint "$here/requirements/constraints.txt" --editable "${here}[dev]"
touch "$venv/.installed"
