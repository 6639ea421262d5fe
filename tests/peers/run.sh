#!/usr/bin/env bash
# Compare Mezzotint with other people's programs (make test-peers).
#
#   COMFYUI_DIR=DIR  checkout of ComfyUI at the commit named in
#                    peerlib/comfy_env.py (required)
#   MEZZOTINT=FILE   the binary under test (default build/bin/mezzotint)
#   ALLOW_SKIP=1     skip, rather than fail, what needs a missing peer
#   PEERS_TORCH=SPEC another requirement for torch, e.g. torch==2.13.0 where
#                    only a CUDA build can be had (the tests use the CPU)
#   PEERS_SCRATCH=DIR where large files go (default build/peers-data)
#
# Arguments go to pytest: run.sh -k kitchen, run.sh --producer=reference.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$here/venv.sh"

missing() {
  echo "test-peers: $1" >&2
  if [[ "${ALLOW_SKIP:-0}" == 1 ]]; then
    echo "test-peers: skipped (ALLOW_SKIP=1)" >&2
    exit 0
  fi
  echo "test-peers: set ALLOW_SKIP=1 to skip what needs a missing peer" >&2
  exit 1
}

peers_venv || missing "could not install the pinned peers"

export MEZZOTINT=${MEZZOTINT:-$root/build/bin/mezzotint}
export PEERS_SCRATCH=${PEERS_SCRATCH:-$root/build/peers-data}
mkdir -p "$PEERS_SCRATCH"
exec "$venv/bin/python" -m pytest -p no:cacheprovider -ra "$here" "$@"
