#!/usr/bin/env bash
# Hold our benchmarks beside torch and comfy-kitchen (make bench-peers), in the
# environment of tests/peers. Arguments go to compare.py, or behind "linears" to
# linears.py; PEERS_TORCH as in tests/peers/run.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/tests/peers/venv.sh"
peers_venv
script=compare.py
if [ "${1:-}" = linears ]; then
  script=linears.py
  shift
fi
exec "$venv/bin/python" "$here/$script" "$@"
