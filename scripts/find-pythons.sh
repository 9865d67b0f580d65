#!/bin/sh
# Prints one line per installed CPython from 3.10 on that can make virtual environments, oldest first:
#
#     3.11 /usr/bin/python3.11
#
# Looks on the PATH, in the usual places of the system, and where pyenv and uv keep theirs. Prints nothing, and still
# exits 0, where there is none: what that means is for the caller to say.
set -u

probe='
import sys
try:
    import ensurepip, venv
except ImportError:
    sys.exit(1)
if sys.implementation.name != "cpython" or sys.version_info < (3, 10) or sys.version_info.releaselevel != "final":
    sys.exit(1)
if getattr(sys, "base_prefix", sys.prefix) != sys.prefix:
    sys.exit(1)
print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], sys.executable))
'

candidates() {
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
        printf '%s\n' "$folder"/python3 "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]
    done
    IFS=$old_ifs
    printf '%s\n' \
        /usr/bin/python3.[0-9]* /usr/local/bin/python3.[0-9]* /opt/python/*/bin/python3 \
        "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/*/bin/python3 \
        "${XDG_DATA_HOME:-${HOME:-/nonexistent}/.local/share}"/uv/python/*/bin/python3
}

candidates | grep -v -e '-config$' | while IFS= read -r python; do
    if [ -x "$python" ]; then
        # A shim of pyenv for a version that is not chosen fails here, as does an old Python on the probe.
        "$python" -I -c "$probe" 2>/dev/null </dev/null || true
    fi
done | sort -t. -k2,2n -s | awk '!seen[$1]++'
