"""Linear layers loaded and run by ComfyUI's comfy.ops.mixed_precision_ops."""

import json

import numpy as np
import pytest

from peerlib import container, linears, oracle

TARGETS = ["float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "int8_row"]
INCLUDE = r"^blocks\..*\.weight$"
SIZES = {"blocks.0.attn.q": (256, 192), "blocks.0.ffn.0": (512, 256),
         "blocks.1.ffn.2": (250, 330)}
SLACK = 1.25  # on an rms estimate of the rounding error


def source_weights(rng):
    return {n: container.bf16(rng.standard_t(5, s) / np.sqrt(s[1]))
            for n, s in SIZES.items()}


def make_source(path, rng):
    tensors = {}
    for name, weight in source_weights(rng).items():
        tensors[name + ".weight"] = weight
        tensors[name + ".bias"] = container.bf16(rng.standard_normal(weight.shape[0]))
    return container.write(path, tensors)


def activation_step_rms(x, target, native):
    """rms of ComfyUI's rounding of the input, relative to the input."""
    if target.startswith("int8"):
        step = np.abs(x).max(axis=1, keepdims=True) / 127
        noise = np.sqrt(np.mean(np.square(np.broadcast_to(step, x.shape))) / 12)
    elif native:  # fp8 with scale 1
        _, mant_bits, bias, *_ = oracle.FLOAT8[target]
        exponent = np.floor(np.log2(np.maximum(np.abs(x), 2.0 ** (1 - bias))))
        noise = np.sqrt(np.mean(np.square(2.0 ** (exponent - mant_bits))) / 12)
    else:
        return 0.0
    return noise / np.sqrt(np.mean(np.square(x)))


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def check_output(torch, linear, weight, bias, x, target, native, dtype):
    """Assert that the layer's output error is what the format allows."""
    with torch.no_grad():
        got = linear(torch.from_numpy(x).to(dtype)).float().numpy().astype(np.float64)
    x = torch.from_numpy(x).to(dtype).double().numpy()
    expected = x @ weight.astype(np.float64).T
    weight_error = oracle.step_rms(weight, target) / np.sqrt(np.mean(np.square(weight)))
    bound = np.hypot(weight_error, activation_step_rms(x, target, native)) * SLACK
    if dtype == torch.bfloat16:
        bound += 2.0 ** -7  # dequantized weight, bias and output in bf16
    error = relative_error(got - bias, expected)
    assert error <= bound, f"output error {error:.4f}, bound {bound:.4f}"
    return error, bound


@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "emulated"])
@pytest.mark.parametrize("form", ["comfy_quant", "metadata"])
@pytest.mark.parametrize("target", TARGETS)
def test_linear_output(producer, comfy, torch, rng, tmp_path, target, form, native,
                       dtype_name):
    dtype = getattr(torch, dtype_name)
    source = make_source(tmp_path / "in.safetensors", rng)
    output = tmp_path / "out.safetensors"
    file = producer.convert(source, target, output, include=INCLUDE)
    assert set(container.layers(file)) == set(SIZES)
    before = container.read(source).tensors
    # What hardware without native support does, the CPU included.
    disabled = set() if native else {"float8_e4m3fn", "float8_e5m2"}
    layers = linears.load(comfy, torch, output, SIZES, form=form, disabled=disabled,
                          dtype=dtype)
    for name, linear in layers.items():
        weight = before[name + ".weight"].array()
        bias = before[name + ".bias"].array()
        x = rng.standard_normal((64, weight.shape[1])).astype(np.float32)
        assert linear.weight._qdata.dtype == {
            "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2,
        }.get(target, torch.int8)
        check_output(torch, linear, weight, bias, x, target, native, dtype)

        # Negative control: a scale that is 25 % off must not pass.
        scale = linear.weight._params.scale
        scale.mul_(1.25)
        with pytest.raises(AssertionError, match="output error"):
            check_output(torch, linear, weight, bias, x, target, native, dtype)
        scale.div_(1.25)


@pytest.mark.parametrize("target", TARGETS)
def test_dequantized_weight_is_the_stored_one(producer, comfy, torch, rng, tmp_path, target):
    """ComfyUI and the oracle decode the file to the same float32 values."""
    source = make_source(tmp_path / "in.safetensors", rng)
    output = tmp_path / "out.safetensors"
    file = producer.convert(source, target, output, include=INCLUDE)
    marks = container.layers(file)
    layers = linears.load(comfy, torch, output, SIZES)
    for name, linear in layers.items():
        expected = oracle.dequantize(name, file.tensors, marks[name]).astype(np.float32)
        assert np.array_equal(linear.weight.dequantize().numpy(), expected), name


def test_full_precision_flag_reaches_comfyui(mezzotint, comfy, torch, rng, tmp_path):
    source = make_source(tmp_path / "in.safetensors", rng)
    for extra, expected in (((), False), (("--full-precision-matrix-mult",), True)):
        output = tmp_path / f"out{len(extra)}.safetensors"
        mezzotint.convert(source, "float8_e4m3fn", output, include=INCLUDE, extra=extra)
        for form in ("comfy_quant", "metadata"):
            for linear in linears.load(comfy, torch, output, SIZES, form=form).values():
                assert linear._full_precision_mm_config is expected


def test_comfyui_refuses_int8_blockwise(producer, comfy, torch, rng, tmp_path):
    """And mezzotint says so when it writes one."""
    weight = container.bf16(rng.standard_normal((256, 128)))
    source = container.write(tmp_path / "in.safetensors", {"blocks.0.ffn.0.weight": weight})
    output = tmp_path / "out.safetensors"
    file = producer.convert(source, "int8_blockwise", output, include=INCLUDE)
    linear = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(128, 256, bias=False)
    state = comfy.utils.load_torch_file(str(output))
    prefix = "blocks.0.ffn.0."
    with pytest.raises(KeyError, match="int8_blockwise"):
        linear.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()})
    assert json.loads(file.tensors[prefix + "comfy_quant"].data)["format"] == "int8_blockwise"
    text = getattr(producer, "last_text", None)
    if text is not None:
        assert "ComfyUI" in text and "int8_tensorwise" in text
