#!/usr/bin/env bash
# Measure what conversion costs a model, against targets (make test-quality; docs/quality.md has the tables).
#
#   MEZZOTINT=FILE   the binary under test (default build/bin/mezzotint)
#   QUALITY=DIR      where trained models are kept (default build/quality); training one takes 3 minutes
#   SEEDS="0 1 2"    the models
#   CTQ=COMMAND      convert_to_quant, for --ctq (default: the peers' one)
#
#   WIDE=1           also a layer of 14336 inputs at effort 3 and what segments cost it: a quarter of an hour more
#
# Arguments go to model.py: run.sh --formats nvfp4, run.sh --ctq.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/tests/peers/venv.sh"
peers_venv
export MEZZOTINT=${MEZZOTINT:-$root/build/bin/mezzotint} CTQ=${CTQ:-$venv/bin/convert_to_quant}
export PYTHONDONTWRITEBYTECODE=1
folder=${QUALITY:-$root/build/quality}

models=()
for seed in ${SEEDS:-0 1 2}; do
  [[ -e $folder/$seed/weights.safetensors ]] || "$venv/bin/python" "$here/tiny_dit.py" "$folder/$seed" --seed "$seed"
  models+=("$folder/$seed")
done
"$venv/bin/python" -m pytest -p no:cacheprovider -q "$here"
failed=0
"$venv/bin/python" "$here/synthetic.py" || failed=1
"$venv/bin/python" "$here/layers.py" || failed=1
"$venv/bin/python" "$here/lora_scales.py" || failed=1
"$venv/bin/python" "$here/calibration_lora.py" || failed=1
if [[ ${WIDE:-} ]]; then
  "$venv/bin/python" "$here/wide.py" || failed=1
  "$venv/bin/python" "$here/segments.py" --wide || failed=1
fi
"$venv/bin/python" "$here/model.py" "${models[@]}" "$@" || failed=1
exit "$failed"
