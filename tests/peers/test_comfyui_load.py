"""Whole models through ComfyUI's own loader, detection included, and run."""

import ast
import logging
import re

import numpy as np
import pytest

from peerlib import container, models, oracle

PREFIX = "model.diffusion_model."
TARGETS = ["float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "int8_row"]

# Relative error of the model's output that the format allows: the weights'
# rounding noise (oracle.step_rms) through a few layers in series. Against the
# same file decoded to float32, fp8 must agree to float rounding (the CPU
# dequantizes it); the int8 formats also round the activations.
BOUND = {"float8_e4m3fn": 0.05, "float8_e5m2": 0.10, "int8_tensorwise": 0.07,
         "int8_row": 0.03}
DECODED_BOUND = {"float8_e4m3fn": 1e-5, "float8_e5m2": 1e-5, "int8_tensorwise": 0.02,
                 "int8_row": 0.02}


def strays(path):
    """Markers that ComfyUI itself adds twice when metadata names have a prefix.

    The metadata is applied before and after the prefix is removed; the first
    set is left over and ignored.
    """
    layers = container.metadata_layers(container.read(path))
    return {n + ".comfy_quant" for n in layers if n.startswith(PREFIX)}


def load(comfy, torch, path, caplog, checkpoint=False):
    """The model, after checking that ComfyUI missed and ignored nothing."""
    options = {"dtype": torch.float32}
    caplog.clear()
    with caplog.at_level(logging.INFO):
        if checkpoint:  # what the all-in-one checkpoint node calls
            patcher = comfy.sd.load_checkpoint_guess_config(
                str(path), output_vae=False, output_clip=False, model_options=options,
                disable_dynamic=True)[0]
        else:
            patcher = comfy.sd.load_diffusion_model(
                str(path), model_options=options, disable_dynamic=True)
    text = caplog.text
    assert "unet missing" not in text, text
    assert "left over keys" not in text, text
    for names in re.findall(r"unet unexpected: (\[.*\])", text):
        assert set(ast.literal_eval(names)) <= strays(path), text
    return patcher.model.diffusion_model, text


def output_of(comfy, torch, path, run, caplog, **how):
    model, text = load(comfy, torch, path, caplog, **how)
    with torch.no_grad():
        y = run(model, torch).double().numpy()
    assert np.isfinite(y).all()
    return y, text


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def rewrite(path, output, change):
    """Copy of a file with `change(tensors, metadata)` applied."""
    file = container.read(path)
    tensors, metadata = dict(file.tensors), dict(file.metadata)
    change(tensors, metadata)
    return container.write(output, tensors, metadata)


def only_metadata(tensors, metadata):
    for name in [n for n in tensors if n.endswith(".comfy_quant")]:
        del tensors[name]


def only_comfy_quant(tensors, metadata):
    del metadata["_quantization_metadata"]


def decode(tensors, metadata):
    """Replace every quantized layer by its float32 value."""
    marks = container.layers(container.File(tensors, metadata))
    for layer, mark in marks.items():
        w = oracle.dequantize(layer, tensors, mark)
        for key in [k for k in tensors if k.startswith(layer + ".weight")]:
            del tensors[key]
        del tensors[layer + ".comfy_quant"]
        tensors[layer + ".weight"] = container.f32(w)
    del metadata["_quantization_metadata"]


def wrong_scales(tensors, metadata):
    for name in tensors:
        if name.endswith(".weight_scale"):
            tensors[name] = container.f32(tensors[name].array() * np.float32(1.25))


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["bare", "prefixed"])
@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
@pytest.mark.parametrize("target", TARGETS)
def test_model_loads_and_runs(producer, comfy, torch, tmp_path, caplog, target,
                              architecture, prefix):
    build, run, always = models.ARCHITECTURES[architecture]
    source = models.checkpoint(build(comfy, torch), tmp_path / "in.safetensors", prefix)
    output = tmp_path / "out.safetensors"
    # No regex: the preset that the program detects.
    file = producer.convert(source, target, output)

    layers = {n.removeprefix(prefix) for n in container.layers(file)}
    expected = {n.removeprefix(prefix).removesuffix(".weight")
                for n in container.read(source).tensors if n.endswith(".weight")}
    expected = {n for n in expected if re.match(always, n)}
    assert expected and expected <= layers, sorted(expected - layers)
    # The full-checkpoint loader accepts only the file's exact names.
    for layer in container.metadata_layers(file):
        assert layer + ".weight" in file.tensors

    reference, text = output_of(comfy, torch, source, run, caplog)
    assert "Detected mixed precision quantization" not in text
    y, text = output_of(comfy, torch, output, run, caplog)
    assert "Detected mixed precision quantization" in text
    assert 0 < relative_error(y, reference) <= BOUND[target]

    decoded = rewrite(output, tmp_path / "decoded.safetensors", decode)
    plain, _ = output_of(comfy, torch, decoded, run, caplog)
    assert relative_error(y, plain) <= DECODED_BOUND[target]

    # Each marker form alone gives the same result.
    for change in (only_metadata, only_comfy_quant):
        single = rewrite(output, tmp_path / f"{change.__name__}.safetensors", change)
        z, text = output_of(comfy, torch, single, run, caplog)
        assert "Detected mixed precision quantization" in text
        assert np.array_equal(y, z)
        if prefix:
            z, text = output_of(comfy, torch, single, run, caplog, checkpoint=True)
            assert "Detected mixed precision quantization" in text
            assert np.array_equal(y, z)

    # Negative control: scales that are 25 % off must not pass.
    broken = rewrite(output, tmp_path / "broken.safetensors", wrong_scales)
    z, _ = output_of(comfy, torch, broken, run, caplog)
    assert relative_error(z, plain) > DECODED_BOUND[target]
    assert relative_error(z, reference) > BOUND[target]


def test_the_load_check_sees_missing_and_unexpected_keys(producer, comfy, torch,
                                                         tmp_path, caplog):
    """Negative control of load()."""
    build, _, _ = models.ARCHITECTURES["wan"]
    source = models.checkpoint(build(comfy, torch), tmp_path / "in.safetensors")
    output = tmp_path / "out.safetensors"
    producer.convert(source, "float8_e4m3fn", output)

    def drop_bias(tensors, metadata):
        del tensors["blocks.0.ffn.0.bias"]

    def stray_scale(tensors, metadata):
        tensors["blocks.0.norm3.weight_scale"] = container.f32(np.float32(1))

    def unknown_format(tensors, metadata):
        only_comfy_quant(tensors, metadata)
        tensors["blocks.0.ffn.0.comfy_quant"] = container.marker({"format": "float9"})

    load(comfy, torch, output, caplog)
    for change, error in ((drop_bias, AssertionError), (stray_scale, AssertionError),
                          (unknown_format, KeyError)):
        path = rewrite(output, tmp_path / f"{change.__name__}.safetensors", change)
        with pytest.raises(error):
            load(comfy, torch, path, caplog)
