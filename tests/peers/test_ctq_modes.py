"""Files of convert_to_quant, every mode that works on a CPU: read, verified and decoded alike.

The reference for a layer's values is the loader that the file is meant for:
ComfyUI's own layer where ComfyUI has the format, else convert_to_quant's own
dequantize.
"""

import re

import numpy as np
import pytest

from peerlib import container, linears

# "odd" divides by nothing that a format would like it to.
SIZES = {"blocks.0.attn.q": (256, 256), "blocks.0.ffn.0": (512, 256),
         "blocks.0.ffn.2": (256, 512), "blocks.1.odd": (200, 320)}
QUANTIZE = ["--comfy_quant", "--device", "cpu", "--manual_seed", "1"]
ROUNDS = ["--num_iter", "6", "--calib_samples", "64"]

# mode -> (arguments, "format" strings that its layers may carry)
MODES = {
    "fp8": (["--simple"], {"float8_e4m3fn"}),
    "fp8_learned": (ROUNDS, {"float8_e4m3fn"}),
    "fp8_full_precision": (["--simple", "--full_precision_matrix_mult"], {"float8_e4m3fn"}),
    "fp8_row": (["--simple", "--scaling_mode", "row"], {"float8_e4m3fn_rowwise"}),
    "fp8_block": (["--simple", "--scaling_mode", "block"], {"float8_e4m3fn_blockwise"}),
    "fp8_block64": (["--simple", "--scaling_mode", "block", "--block_size", "64"],
                    {"float8_e4m3fn_blockwise"}),
    "fp8_block3d": (["--simple", "--scaling_mode", "block3d"], {"float8_e4m3fn_blockwise"}),
    "int8": (["--simple", "--int8"], {"int8_tensorwise"}),
    "int8_row": (["--simple", "--int8", "--scaling_mode", "row"], {"int8_tensorwise"}),
    "int8_block": (["--simple", "--int8", "--scaling_mode", "block"],
                   {"int8_blockwise", "int8_tensorwise"}),
    "int8_block_learned": ([*ROUNDS, "--int8", "--scaling_mode", "block"],
                           {"int8_blockwise", "int8_tensorwise"}),
    "convrot": (["--simple", "--int8", "--convrot", "--scaling_mode", "row"],
                {"int8_tensorwise"}),
    "convrot64": (["--simple", "--int8", "--convrot", "--convrot-group-size", "64",
                   "--scaling_mode", "row"], {"int8_tensorwise"}),
    "convrot_dynamic": (["--simple", "--int8", "--dynamic-convrot", "--scaling_mode", "row"],
                        {"int8_tensorwise"}),
    "nvfp4": (["--simple", "--nvfp4"], {"nvfp4"}),
    "nvfp4_learned": ([*ROUNDS, "--nvfp4"], {"nvfp4"}),
    "mxfp8": (["--simple", "--mxfp8"], {"mxfp8"}),
    "mxfp8_metadata": (["--simple", "--mxfp8", "--save-quant-metadata"], {"mxfp8"}),
}
# What convert_to_quant itself gets wrong, and verify says about it.
FAULTS = {
    "fp8_block": r"float8_e4m3fn_rowwise",  # odd shapes: row-wise under the block label
    "fp8_block64": r"float8_e4m3fn_rowwise",
    "fp8_block3d": r"float8_e4m3fn_rowwise",
}
COMFYUI = {"float8_e4m3fn", "int8_tensorwise", "nvfp4", "mxfp8"}


def source(path, rng, mode=""):
    tensors = {}
    for name, shape in SIZES.items():
        if name.endswith("odd") and mode.startswith("int8_block"):
            continue  # convert_to_quant stops with an exception there
        tensors[name + ".weight"] = container.bf16(rng.standard_t(5, shape) / np.sqrt(shape[1]))
        tensors[name + ".bias"] = container.bf16(rng.standard_normal(shape[0]))
    return container.write(path, tensors)


def ctq_values(torch, layer, tensors, mark):
    """convert_to_quant's own dequantize of a layer that ComfyUI cannot load."""
    from convert_to_quant.comfy import quant_ops
    stored = tensors[layer + ".weight"]
    dtype = torch.int8 if stored.dtype == "I8" else torch.float8_e4m3fn
    codes = torch.frombuffer(bytearray(stored.data), dtype=torch.uint8).view(dtype)
    codes = codes.reshape(stored.shape)
    scale = torch.from_numpy(tensors[layer + ".weight_scale"].array().copy())
    if scale.ndim == 1:  # row-wise, whatever the label says
        values = quant_ops.RowWiseFP8Layout.dequantize(codes, scale, torch.float32)
    elif dtype == torch.int8:
        values = quant_ops.BlockWiseINT8Layout.dequantize(
            codes, scale, mark["group_size"], is_weight=True, orig_dtype=torch.float32)
    else:
        values = quant_ops.BlockWiseFP8Layout.dequantize(
            codes, scale, mark["group_size"], torch.float32)
    return values.float().numpy()


def reference_values(comfy, torch, path, file):
    marks = container.layers(file)
    known = {n for n, mark in marks.items() if mark["format"] in COMFYUI}
    out = {n: ctq_values(torch, n, file.tensors, marks[n]) for n in set(marks) - known}
    if known:
        part = {k: t for k, t in file.tensors.items() if k.rsplit(".", 1)[0] in known}
        subset = container.write(path.with_suffix(".known.safetensors"), part)
        for name, linear in linears.load(comfy, torch, subset, {n: SIZES[n] for n in known}).items():
            out[name] = linear.weight.dequantize().float().numpy()
    return out


def check_values(decoded, expected, tensors_rotated):
    for name, values in expected.items():
        got = decoded.tensors[name + ".weight"].array()
        assert got.shape == SIZES[name]
        if name in tensors_rotated:  # two orders of the same float32 additions
            assert np.abs(got - values).max() <= 2.0 ** -20 * np.abs(values).max(), name
        else:  # at most one rounding apart: scales multiplied in another order
            assert np.abs(got - values).max() <= 2.0 ** -22 * np.abs(values).max(), name


@pytest.mark.parametrize("mode", list(MODES))
def test_mode(mezzotint, run_ctq, comfy, torch, rng, tmp_path, mode):
    args, formats = MODES[mode]
    path = run_ctq(source(tmp_path / "in.safetensors", rng, mode), *QUANTIZE, *args,
                   output=tmp_path / f"{mode}.safetensors")
    file = container.read(path)
    marks = container.layers(file)
    assert marks and {m["format"] for m in marks.values()} <= formats, marks

    if mode in FAULTS:
        text = mezzotint.run("verify", path, "--any-runtime", expect=3)
        assert re.search(FAULTS[mode], text), text
    else:
        mezzotint.run("verify", path, "--any-runtime")

    plain = tmp_path / "plain.safetensors"
    decoded = mezzotint.convert(path, "fp32", plain, extra=["--preset", "none"])
    assert not container.layers(decoded)
    expected = reference_values(comfy, torch, path, file)
    assert set(expected) == set(marks)
    rotated = {n for n, m in marks.items() if m.get("convrot")}
    check_values(decoded, expected, rotated)

    # Negative control: one scale that is 1 % off must show.
    layer = sorted(marks)[0]
    expected[layer] = expected[layer] * np.float32(1.01)
    with pytest.raises(AssertionError):
        check_values(decoded, expected, rotated)


def test_hybrid_mxfp8(mezzotint, run_ctq, comfy, torch, rng, tmp_path):
    """mxfp8 under another name, with one more scale that no weight needs."""
    path = run_ctq(source(tmp_path / "in.safetensors", rng), *QUANTIZE, "--simple", "--mxfp8",
                   output=tmp_path / "mxfp8.safetensors")
    hybrid = run_ctq(path, "--make-hybrid-mxfp8", output=tmp_path / "hybrid.safetensors")
    marks = container.layers(container.read(hybrid))
    assert {m["format"] for m in marks.values()} == {"hybrid_mxfp8"}
    mezzotint.run("verify", hybrid, "--any-runtime")
    values = []
    for name in (path, hybrid):
        plain = tmp_path / f"{name.stem}_plain.safetensors"
        decoded = mezzotint.convert(name, "fp32", plain, extra=["--preset", "none"])
        values.append({k: t.data for k, t in decoded.tensors.items() if k.endswith(".weight")})
    assert values[0] == values[1]


def test_converted_legacy_files(mezzotint, run_ctq, rng, tmp_path):
    """--convert-int8-scaled mislabels scales per row as blocks of one; verify says what they are."""
    tensors = {}
    for name, shape in {"blocks.0.a": (64, 128), "blocks.0.b": (128, 64)}.items():
        w = rng.standard_normal(shape)
        scale = np.abs(w).max(axis=1, keepdims=True) / 127
        codes = np.rint(w / scale).astype(np.int8)
        tensors[name + ".weight"] = container.Tensor("I8", shape, codes.tobytes())
        tensors[name + ".scale_weight"] = container.f32(scale)
        tensors[name + ".bias"] = container.bf16(np.zeros(shape[0]))
    legacy = container.write(tmp_path / "legacy.safetensors", tensors)
    path = run_ctq(legacy, "--convert-int8-scaled")
    file = container.read(path)
    marks = container.layers(file)
    assert {m["format"] for m in marks.values()} >= {"int8_blockwise"}
    text = mezzotint.run("verify", path, "--any-runtime", expect=3)
    assert "int8_tensorwise" in text, text
    decoded = mezzotint.convert(path, "fp32", tmp_path / "plain.safetensors",
                                extra=["--preset", "none"])
    for name in marks:
        codes = file.tensors[name + ".weight"].array().astype(np.float32)
        scale = file.tensors[name + ".weight_scale"].array().reshape(-1, 1)
        assert np.array_equal(decoded.tensors[name + ".weight"].array(), codes * scale), name
