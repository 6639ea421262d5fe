# Sourced: the virtual environment of the pinned peers, build/peers-venv. The
# caller sets `root` (the repository) and calls peers_venv, which installs what
# requirements.txt and PEERS_TORCH name unless it is there already, and sets
# `venv`. Fails with a message where a package cannot be had.
peers_venv() {
  local here=$root/tests/peers
  local torch_spec=${PEERS_TORCH:-torch==2.13.0+cpu}
  venv=$root/build/peers-venv
  local stamp=$venv/.installed want
  want=$( (echo "$torch_spec"; cat "$here/requirements.txt") | sha256sum | cut -d' ' -f1)
  [[ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]] || return 0

  mkdir -p "$root/build"
  [[ -x $venv/bin/python ]] || python3 -m venv "$venv" || return 1
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  # torch first and alone; the constraint then stops any later upgrade.
  "${pip[@]}" "$torch_spec" || {
    echo "peers: pip found no $torch_spec. Point pip at PyTorch's CPU" >&2
    echo "wheels (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), or set" >&2
    echo "PEERS_TORCH=torch==2.13.0 to accept the default build." >&2
    return 1
  }
  echo "$torch_spec" > "$venv/.constraint"
  "${pip[@]}" -c "$venv/.constraint" -r "$here/requirements.txt" || return 1
  echo "$want" > "$stamp"
}
