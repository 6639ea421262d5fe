"""Files of other writers: legacy fp8, convert_to_quant's, mislabelled int8."""

import json

import numpy as np
import pytest

from peerlib import container, linears, oracle

SIZES = {"blocks.0.attn.q": (256, 128), "blocks.0.ffn.0": (512, 256)}


def float_source(path, rng):
    tensors = {"norm.weight": container.bf16(np.ones(128))}
    for name, shape in SIZES.items():
        tensors[name + ".weight"] = container.bf16(rng.standard_t(5, shape) * 0.02)
        tensors[name + ".bias"] = container.bf16(rng.standard_normal(shape[0]))
    return container.write(path, tensors, {"author": "someone"})


def legacy_fp8(path, rng, marker_size=0, dtype="float8_e4m3fn"):
    """scaled_fp8 file: one layer with an input scale of 1, one with 0.5."""
    tensors = {"scaled_fp8": container.Tensor("F8_E4M3", (marker_size,), bytes(marker_size))}
    for n, (name, shape) in enumerate(SIZES.items()):
        w = (rng.standard_t(5, shape) * 0.02).astype(np.float32)
        codes, scale = oracle.quantize_float8(w, dtype)
        tensors[name + ".weight"] = container.Tensor(oracle.FLOAT8[dtype][5], shape,
                                                     codes.tobytes())
        tensors[name + ".scale_weight"] = container.f32(scale)
        tensors[name + ".scale_input"] = container.f32(np.float32(0.5 if n else 1))
        tensors[name + ".bias"] = container.bf16(rng.standard_normal(shape[0]))
    return container.write(path, tensors, {"author": "someone"})


def int8_file(path, rng, per_row, scale_suffix, mark=None, flat_scale=False):
    tensors = {}
    for name, shape in SIZES.items():
        w = (rng.standard_normal(shape) * 0.02).astype(np.float32)
        codes, scale = oracle.quantize_int8(w, per_row)
        tensors[name + ".weight"] = container.Tensor("I8", shape, codes.tobytes())
        tensors[name + scale_suffix] = container.f32(scale.ravel() if flat_scale else scale)
        if mark:
            tensors[name + ".comfy_quant"] = container.marker(mark)
    return container.write(path, tensors, {"author": "someone"})


def assert_weights_kept(before, after, old_scale=".weight_scale", formats=None):
    """Codes and scales of every layer survived, both marker forms are there."""
    marks = container.layers(after)
    assert set(marks) == set(SIZES)
    assert container.metadata_layers(after) == marks
    for name in SIZES:
        assert after.tensors[name + ".weight"] == before.tensors[name + ".weight"], name
        old = before.tensors[name + old_scale]
        new = after.tensors[name + ".weight_scale"]
        assert new.dtype == "F32" and new.data == old.data, name
        if formats:
            assert marks[name]["format"] == formats, name
    assert after.metadata["author"] == "someone"
    leftovers = (".scale_weight", ".scale_input", "scaled_fp8")
    assert not [n for n in after.tensors if n.endswith(leftovers)]


@pytest.mark.parametrize("marker_size", [0, 2])
def test_legacy_fp8_is_relabelled(mezzotint, comfy, torch, rng, tmp_path, marker_size):
    source = legacy_fp8(tmp_path / "in.safetensors", rng, marker_size)
    assert "float8_e4m3fn" in mezzotint.run("inspect", source)
    output = tmp_path / "out.safetensors"
    after = mezzotint.convert(source, "float8_e4m3fn", output)
    before = container.read(source)
    assert_weights_kept(before, after, ".scale_weight", "float8_e4m3fn")
    for mark in container.layers(after).values():
        assert mark.get("full_precision_matrix_mult", False) is (marker_size == 2)
    second = after.tensors["blocks.0.ffn.0.input_scale"]
    assert second.dtype == "F32" and second.array() == np.float32(0.5)
    mezzotint.run("verify", output)

    # ComfyUI does the same with either file.
    old = linears.load(comfy, torch, source, SIZES)
    new = linears.load(comfy, torch, output, SIZES)
    for name, shape in SIZES.items():
        x = torch.from_numpy(rng.standard_normal((8, shape[1])).astype(np.float32))
        assert torch.equal(old[name](x), new[name](x)), name


def test_legacy_fp8_is_relabelled_as_ctq_does(mezzotint, run_ctq, rng, tmp_path):
    source = legacy_fp8(tmp_path / "in.safetensors", rng)
    theirs = container.read(run_ctq(source, "--convert-fp8-scaled", "--save-quant-metadata"))
    ours = mezzotint.convert(source, "float8_e4m3fn", tmp_path / "out.safetensors")
    for name in SIZES:
        for suffix in (".weight", ".weight_scale", ".bias"):
            assert ours.tensors[name + suffix] == theirs.tensors[name + suffix]
    assert container.layers(ours) == container.layers(theirs)


def test_legacy_fp8_written_by_ctq(mezzotint, run_ctq, rng, tmp_path):
    source = legacy_fp8(tmp_path / "in.safetensors", rng)
    cleaned = run_ctq(source, "--cleanup-fp8-scaled", "--scaled-fp8-marker", "2")
    before = container.read(cleaned)
    assert before.tensors["scaled_fp8"].shape == (2,)
    after = mezzotint.convert(cleaned, "float8_e4m3fn", tmp_path / "out.safetensors")
    assert_weights_kept(before, after, ".scale_weight", "float8_e4m3fn")
    assert all(m["full_precision_matrix_mult"] is True
               for m in container.layers(after).values())


def test_legacy_e5m2_is_not_called_e4m3(mezzotint, rng, tmp_path):
    """ComfyUI labels it e4m3 and casts the values; the codes are kept instead."""
    source = legacy_fp8(tmp_path / "in.safetensors", rng, dtype="float8_e5m2")
    after = mezzotint.convert(source, "float8_e5m2", tmp_path / "out.safetensors")
    assert_weights_kept(container.read(source), after, ".scale_weight", "float8_e5m2")


@pytest.mark.parametrize("options", [(), ("--save-quant-metadata",)],
                         ids=["comfy_quant", "both"])
def test_ctq_fp8(mezzotint, run_ctq, rng, tmp_path, options):
    source = float_source(tmp_path / "in.safetensors", rng)
    theirs = run_ctq(source, "--simple", "--comfy_quant", "--manual_seed", "7", *options)
    before = container.read(theirs)
    assert set(container.layers(before)) == set(SIZES)
    assert "float8_e4m3fn" in mezzotint.run("inspect", theirs)
    mezzotint.run("verify", theirs)
    after = mezzotint.convert(theirs, "float8_e4m3fn", tmp_path / "out.safetensors")
    assert_weights_kept(before, after, formats="float8_e4m3fn")
    plain = mezzotint.convert(theirs, "fp32", tmp_path / "plain.safetensors")
    for name, mark in container.layers(before).items():
        expected = oracle.dequantize(name, before.tensors, mark).astype(np.float32)
        assert np.array_equal(plain.tensors[name + ".weight"].array(), expected), name


def test_ctq_int8_blockwise(mezzotint, run_ctq, rng, tmp_path):
    source = float_source(tmp_path / "in.safetensors", rng)
    theirs = run_ctq(source, "--simple", "--int8", "--scaling_mode", "block",
                     "--block_size", "128", "--comfy_quant", "--manual_seed", "7")
    before = container.read(theirs)
    # ComfyUI cannot load the format: a finding.
    assert "int8_blockwise" in mezzotint.run("verify", theirs, expect=3)
    same = mezzotint.convert(theirs, "int8_blockwise", tmp_path / "same.safetensors")
    assert_weights_kept(before, same, formats="int8_blockwise")
    rows = mezzotint.convert(theirs, "int8_row", tmp_path / "rows.safetensors")
    mezzotint.run("verify", tmp_path / "rows.safetensors")
    for name, mark in container.layers(before).items():
        old = oracle.dequantize(name, before.tensors, mark)
        new = oracle.dequantize(name, rows.tensors, container.layers(rows)[name])
        scale = rows.tensors[name + ".weight_scale"].array()
        assert (np.abs(new - old) <= 0.5001 * scale).all(), name


@pytest.mark.parametrize("per_row", [False, True], ids=["tensor", "row"])
def test_int8_mislabelled_by_ctq(mezzotint, run_ctq, rng, tmp_path, per_row):
    """Its converter calls these int8_blockwise; the scale's shape says what they are."""
    source = int8_file(tmp_path / "in.safetensors", rng, per_row, ".scale_weight")
    theirs = run_ctq(source, "--convert-int8-scaled")
    before = container.read(theirs)
    assert {m["format"] for m in container.layers(before).values()} == {"int8_blockwise"}
    mezzotint.run("verify", theirs, expect=3)
    output = tmp_path / "out.safetensors"
    after = mezzotint.convert(theirs, "int8_row" if per_row else "int8_tensorwise", output)
    assert_weights_kept(before, after, formats="int8_tensorwise")
    mezzotint.run("verify", output)


def test_int8_axiswise_becomes_loadable(mezzotint, comfy, torch, rng, tmp_path):
    source = int8_file(tmp_path / "in.safetensors", rng, True, ".weight_scale",
                       {"format": "int8_axiswise"}, flat_scale=True)
    assert "int8_axiswise" in mezzotint.run("verify", source, expect=3)
    output = tmp_path / "out.safetensors"
    after = mezzotint.convert(source, "int8_row", output)
    assert_weights_kept(container.read(source), after, formats="int8_tensorwise")
    for name, layer in linears.load(comfy, torch, output, SIZES).items():
        assert after.tensors[name + ".weight_scale"].shape == (SIZES[name][0], 1)
        expected = oracle.dequantize(name, after.tensors, container.layers(after)[name])
        assert np.array_equal(layer.weight.dequantize().numpy(), expected.astype(np.float32))


def test_old_bare_string_metadata(mezzotint, comfy, torch, rng, tmp_path):
    """Layers given as "layer": "format", which crashes ComfyUI today."""
    source = legacy_fp8(tmp_path / "legacy.safetensors", rng)
    file = container.read(source)
    tensors = {n.replace(".scale_weight", ".weight_scale"): t
               for n, t in file.tensors.items()
               if n != "scaled_fp8" and not n.endswith(".scale_input")}
    metadata = {"author": "someone", "_quantization_metadata": json.dumps(
        {"format_version": "1.0", "layers": {n: "float8_e4m3fn" for n in SIZES}})}
    old = container.write(tmp_path / "old.safetensors", tensors, metadata)
    with pytest.raises(AttributeError):
        linears.load(comfy, torch, old, SIZES)
    output = tmp_path / "out.safetensors"
    after = mezzotint.convert(old, "float8_e4m3fn", output)
    assert_weights_kept(container.read(old), after, formats="float8_e4m3fn")
    linears.load(comfy, torch, output, SIZES)


def test_scales_without_a_marker(mezzotint, rng, tmp_path):
    source = int8_file(tmp_path / "in.safetensors", rng, True, ".weight_scale")
    after = mezzotint.convert(source, "int8_row", tmp_path / "out.safetensors")
    assert_weights_kept(container.read(source), after, formats="int8_tensorwise")
