"""Every output loads in Python's safetensors; what is copied is copied exactly."""

import json

import numpy as np
import pytest

from conftest import need_module
from peerlib import container

TARGETS = ["float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "int8_row",
           "int8_blockwise"]
PLAIN = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
STORED = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
INCLUDE = r"^blocks\..*\.weight$"
METADATA = {"format": "pt", "author": "a \u00e9 \"quoted\" \n name", "empty": "",
            "modelspec.title": "peer test", "json": json.dumps({"a": [1, {"b": 2}]})}


def source_file(path, rng):
    def normal(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    raw = rng.integers(0, 256, 96, dtype=np.uint8).tobytes()
    tensors = {
        "blocks.0.attn.q.weight": container.bf16(normal(256, 128)),
        "blocks.0.attn.q.bias": container.bf16(normal(256)),
        "blocks.1.ffn.0.weight": container.f32(normal(384, 256)),
        "norm.weight": container.bf16(normal(128)),
        "patch.weight": container.f32(normal(8, 4, 2, 2)),
        "scalar": container.f32(np.float32(1.5)),
        "empty": container.f32(np.zeros((0, 4))),
        "table": container.Tensor("I64", (12,), raw),
        "mask": container.Tensor("BOOL", (4,), b"\0\1\1\0"),
        "half": container.Tensor("F16", (48,), np.arange(48, dtype="<f2").tobytes()),
        "names": container.u8("unicode \u00fc".encode()),
    }
    return container.write(path, tensors, METADATA)


def load_everything(safetensors, path):
    """name -> (dtype, shape) with every tensor read, and the metadata."""
    found = {}
    with safetensors.safe_open(str(path), framework="pt") as f:
        for name in f.keys():
            tensor = f.get_tensor(name)
            found[name] = (str(tensor.dtype), tuple(tensor.shape))
        return found, f.metadata() or {}


@pytest.mark.parametrize("target", TARGETS + list(PLAIN))
def test_output_loads_and_copies_are_exact(producer, torch, rng, tmp_path, target, request):
    if target in PLAIN and request.config.getoption("--producer") == "reference":
        pytest.skip("the reference converter has no plain targets")
    safetensors = need_module("safetensors")
    source = source_file(tmp_path / "in.safetensors", rng)
    output = tmp_path / "out.safetensors"
    file = producer.convert(source, target, output, include=INCLUDE)
    found, metadata = load_everything(safetensors, output)
    assert set(found) == set(file.tensors)
    for key, value in METADATA.items():
        assert metadata[key] == value, key

    before = container.read(source).tensors
    quantized = {"blocks.0.attn.q", "blocks.1.ffn.0"}
    for name, tensor in before.items():
        if name.removesuffix(".weight") in quantized and name.endswith(".weight"):
            expected = PLAIN.get(target) or STORED.get(target, "I8")
            assert file.tensors[name].dtype == expected
            assert file.tensors[name].shape == tensor.shape
        elif target in TARGETS:
            assert file.tensors[name] == tensor, name
    if target in TARGETS:
        assert set(container.layers(file)) == quantized
        added = {f"{n}.{s}" for n in quantized for s in ("weight_scale", "comfy_quant")}
        assert set(file.tensors) - set(before) == added
        # Both marker forms say the same of the same layers.
        assert container.metadata_layers(file) == container.layers(file)
    else:
        assert set(file.tensors) == set(before)
        assert "_quantization_metadata" not in file.metadata


def test_a_damaged_file_does_not_load(producer, torch, rng, tmp_path):
    """Negative control: the loader used above does check the container."""
    safetensors = need_module("safetensors")
    source = source_file(tmp_path / "in.safetensors", rng)
    output = tmp_path / "out.safetensors"
    producer.convert(source, "float8_e4m3fn", output, include=INCLUDE)
    whole = output.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-1])
    (tmp_path / "long.safetensors").write_bytes(whole + b"\0")
    load_everything(safetensors, output)
    for name in ("short", "long"):
        with pytest.raises(safetensors.SafetensorError):
            load_everything(safetensors, tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("target", TARGETS)
def test_plain_target_turns_a_quantized_file_back(mezzotint, rng, tmp_path, target):
    """The decoded weight is the stored one: codes times scale, rounded once."""
    from peerlib import oracle

    source = source_file(tmp_path / "in.safetensors", rng)
    file = mezzotint.convert(source, target, tmp_path / "q.safetensors", include=INCLUDE)
    plain = mezzotint.convert(tmp_path / "q.safetensors", "fp32", tmp_path / "p.safetensors")
    assert not container.layers(plain)
    for layer, mark in container.layers(file).items():
        expected = oracle.dequantize(layer, file.tensors, mark)
        got = plain.tensors[layer + ".weight"]
        assert got.dtype == "F32"
        assert np.array_equal(got.array(), expected.astype(np.float32)), layer
