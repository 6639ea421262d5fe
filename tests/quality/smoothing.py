"""What smoothing gains where inputs are rounded, too: smoothing.py [DIT...]

First the synthetic layer of synthetic.py, whose inputs have outlier channels: with factors beside the weight (nvfp4), and
in the norm in front (a layer of T5 in other formats). Then models as for model.py. Inputs are multiplied by what the
file says and rounded as its loaders do; measured on what calibration has not seen.
"""
import sys
import tempfile
from pathlib import Path

import torch
from model import Bed, mean
from program import run
from reference import cast_fp8, cast_int8, inputs, weights
from safetensors.torch import load_file, save_file
from synthetic import NAME, SIZE, record

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
MIDDLES = (E2M1[1:] + E2M1[:-1]) / 2
CONVERSIONS = {"effort 0": ["--effort", "0"], "effort 1": ["--effort", "1"], "effort 3": ["--effort", "3"]}
ALPHAS = [None, 0.25, 0.5, 0.75]


def rounded(x, input_scale):
    """x as nvfp4 holds it with a static global scale: E4M3 scales for 16 values each, nearest E2M1 values."""
    blocks = x.reshape(-1, 16)
    scale = (blocks.abs().amax(1, keepdim=True) / 6 / input_scale).clamp(max=448).to(torch.float8_e4m3fn).float()
    step = scale * input_scale
    units = torch.where(step > 0, blocks / step, 0)
    return (E2M1[torch.bucketize(units.abs(), MIDDLES)] * units.sign() * step).reshape(x.shape)


def converted(matrices, options, alpha, calibration):
    """Decoded weights; and for every layer what its input becomes, given as a function."""
    with tempfile.TemporaryDirectory() as folder:
        source, packed, plain = (Path(folder) / f"{name}.safetensors" for name in ("in", "packed", "plain"))
        save_file({f"{name}.weight": w.contiguous() for name, w in matrices.items()}, source)
        smooth = ["--smooth", alpha] if alpha is not None else []
        run("convert", source, "-o", packed, "--to", "nvfp4", "--preset", "none", "--include", r"blocks\..*", "-j", 1,
            "--calibration", calibration, *options, *smooth)
        run("convert", packed, "-o", plain, "--to", "fp32", "--preset", "none")
        stored, values = load_file(packed), load_file(plain)

    def seen(name):
        scale, one = stored[f"{name}.input_scale"], torch.ones(matrices[name].shape[1])
        factors = stored.get(f"{name}.pre_quant_scale", one)
        return lambda x: rounded(x * factors, scale) / factors

    return {name: values[f"{name}.weight"].float() for name in matrices}, {name: seen(name) for name in matrices}


def synthetic():
    w = weights("gauss", SIZE, SIZE)
    x, held_out = inputs(SIZE)
    expected = held_out @ w.T
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration.safetensors"
        record(x, calibration)
        for label, options in CONVERSIONS.items():
            for alpha in ALPHAS:
                values, seen = converted({NAME: w}, options, alpha, calibration)
                both = seen[NAME](held_out) @ values[NAME].T - expected
                weight_only = held_out @ values[NAME].T - expected
                print(f"| synthetic | {label} | {alpha if alpha is not None else 'none'} | "
                      f"{both.norm() / expected.norm():.4f} | {weight_only.norm() / expected.norm():.4f} |", flush=True)


def in_norms():
    """The layer reads a norm of weights 1: its weights afterwards are what the input is multiplied by."""
    block = "encoder.block.0.layer"
    layer, norm = f"{block}.0.SelfAttention.q", f"{block}.0.layer_norm"
    w = weights("gauss", SIZE, SIZE)
    x, held_out = inputs(SIZE)
    expected = held_out @ w.T
    rounding = {"float8_e4m3fn": lambda x, scale: cast_fp8(x / scale) * scale,
                "int8_row": lambda x, _: cast_int8(x / (step := x.abs().amax(1, keepdim=True) / 127)) * step}
    with tempfile.TemporaryDirectory() as folder:
        calibration, source, packed, plain = (Path(folder) / f"{name}.safetensors" for name in "cspd")
        record(x, calibration)
        save_file({name.replace(NAME, layer): t for name, t in load_file(calibration).items()}, calibration,
                  metadata={"mezzotint_calibration": "1"})
        save_file({f"{layer}.weight": w, f"{norm}.weight": torch.ones(SIZE)}, source)
        for to, seen in rounding.items():
            for label, options in CONVERSIONS.items():
                for alpha in ALPHAS:
                    smooth = ["--smooth", alpha] if alpha is not None else []
                    run("convert", source, "-o", packed, "--force", "--to", to, "--preset", "t5", "-j", 1,
                        "--calibration", calibration, *options, *smooth)
                    run("convert", packed, "-o", plain, "--force", "--to", "fp32", "--preset", "none")
                    stored, values = load_file(packed), load_file(plain)
                    factors, q = values[f"{norm}.weight"], values[f"{layer}.weight"]
                    assert (factors != 1).any() == (alpha is not None)
                    both = seen(held_out * factors, stored.get(f"{layer}.input_scale")) @ q.T - expected
                    alone = (held_out * factors) @ q.T - expected
                    print(f"| synthetic, {to}, in the norm | {label} | {alpha if alpha is not None else 'none'} | "
                          f"{both.norm() / expected.norm():.4f} | {alone.norm() / expected.norm():.4f} |", flush=True)


def velocity_errors(bed, values, seen):
    hooks = [bed.model.get_submodule(name).register_forward_pre_hook(
        lambda _module, args, see=see: (see(args[0]),)) for name, see in seen.items()]
    try:
        return bed.measure(values)["velocity"]
    finally:
        for hook in hooks:
            hook.remove()


def models(folders):
    beds = [Bed(folder) for folder in folders]
    for label, options in CONVERSIONS.items():
        for alpha in ALPHAS:
            both, alone = [], []
            for bed in beds:
                values, seen = converted(bed.weights, options, alpha, bed.calibration["data"])
                both += velocity_errors(bed, values, seen)
                alone += velocity_errors(bed, values, {})
            print(f"| models | {label} | {alpha if alpha is not None else 'none'} | {mean(both):.5f} | {mean(alone):.5f} |",
                  flush=True)


def main():
    torch.set_num_threads(1)
    print("| bed | conversion | --smooth | error, inputs rounded | error, weights alone |\n|---|---|---|---|---|")
    synthetic()
    in_norms()
    if sys.argv[1:]:
        models([Path(folder) for folder in sys.argv[1:]])


if __name__ == "__main__":
    main()
