"""What --calibration-lora gains where the adapter reads, and what it costs elsewhere (docs/quality.md).

The "lowrank" weights and the inputs of synthetic.py, the smooth LoRA of lora_scales.py. inside: ||E P|| / ||W||, P the
projector on what the LoRA's down factor reads; weight: ||E|| / ||W||; held out: error of the output. Exits with the
targets that were missed.
"""
import sys
import tempfile
from pathlib import Path

import torch
from lora_scales import NAME, SIZE, smooth
from program import quantized
from reference import inputs, output_error, weight_error, weights
from safetensors.torch import save_file
from synthetic import record

FORMATS = ["float8_e4m3fn", "int8_row", "int8_blockwise", "nvfp4"]
METHODS = {"effort 1": (["--effort", "1"], False), "effort 2": (["--effort", "2"], False), "effort 3": (["--effort", "3"], False),
           "effort 2, data": (["--effort", "2"], True), "effort 3, data": (["--effort", "3"], True)}
MOST_INSIDE, MOST_WEIGHT = 0.42, 1.05  # ratios to the same conversion without


def main():
    torch.set_num_threads(1)
    missed = []
    w = weights("lowrank", SIZE, SIZE)
    up, down = smooth()
    basis, _ = torch.linalg.qr(down.T)
    elsewhere, _ = torch.linalg.qr(torch.randn(SIZE, 32, generator=torch.Generator().manual_seed(1)))
    x, held_out = inputs(SIZE)
    print("| format | method | inside | weight | held out | another space |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        lora, calibration = Path(folder) / "lora.safetensors", Path(folder) / "calibration.safetensors"
        save_file({f"{NAME}.lora_up.weight": up.contiguous(), f"{NAME}.lora_down.weight": down.contiguous()}, lora)
        record(x, calibration)
        for target in FORMATS:
            for label, (options, data) in METHODS.items():
                rows = []
                for more in ([], ["--calibration-lora", lora]):
                    values, _ = quantized({NAME: w}, target, options + more, calibration if data else None)
                    error = values[NAME] - w
                    rows.append([((error @ basis).norm() / w.norm()).item(), weight_error(w, values[NAME]),
                                 output_error(held_out, w, values[NAME]), ((error @ elsewhere).norm() / w.norm()).item()])
                ratios = [after / before for before, after in zip(*rows)]
                print(f"| {target} | {label} | " + " | ".join(
                    f"{before:.5f} -> {after:.5f} ({ratio:.2f})" for before, after, ratio in zip(*rows, ratios)) + " |", flush=True)
                if ratios[0] > MOST_INSIDE or ratios[1] > MOST_WEIGHT or ratios[3] < 0.9:
                    missed.append(f"{target} {label}: {ratios}")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
