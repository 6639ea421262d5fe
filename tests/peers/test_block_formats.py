"""Block-scaled, rotated and 4-bit formats in ComfyUI's own layers: loaded, decoded and multiplied."""

import numpy as np
import pytest

from peerlib import container, linears, oracle

TARGETS = ["nvfp4", "mxfp8", "int8_convrot", "convrot_w4a4", "asym_w4a8_int8"]
INCLUDE = r"^blocks\..*\.weight$"
SIZES = {"blocks.0.attn.q": (256, 256), "blocks.0.ffn.0": (512, 256),
         "blocks.1.ffn.2": (250, 512)}  # 250 rows: the padded formats pad
NO_BIAS = "blocks.1.ffn.2"  # ComfyUI fails on mxfp8 with a bias and rows that are no multiple of 32
# The CPU multiplies the dequantized weight of these, as GPUs without the instructions do.
DISABLED = {"nvfp4", "mxfp8"}
ROTATED = {"int8_convrot", "convrot_w4a4", "asym_w4a8_int8"}
SLACK = 1.25  # on an rms estimate of the rounding error


@pytest.fixture
def converted(producer, tmp_path, rng, request):
    target = request.getfixturevalue("target")
    tensors = {}
    for name, shape in SIZES.items():
        tensors[name + ".weight"] = container.bf16(rng.standard_t(5, shape) / np.sqrt(shape[1]))
        if name != NO_BIAS:
            tensors[name + ".bias"] = container.bf16(rng.standard_normal(shape[0]))
    source = container.write(tmp_path / "in.safetensors", tensors)
    output = tmp_path / "out.safetensors"
    file = producer.convert(source, target, output, include=INCLUDE)
    assert set(container.layers(file)) == set(SIZES)
    return tensors, output


def activation_error(x, target):
    """Relative rms of what ComfyUI's rounding of the input adds."""
    if target in DISABLED:
        return 0.0
    rotated = oracle.rotate(x.astype(np.float64))
    steps = 7 if target == "convrot_w4a4" else 127  # CPU: int4 activations whatever linear_dtype says
    step = np.abs(rotated).max(axis=1, keepdims=True) / steps
    return float(np.sqrt(np.mean(np.square(np.broadcast_to(step, x.shape))) / 12)
                 / np.sqrt(np.mean(np.square(x))))


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def check_output(torch, linear, weight, bias, x, target):
    with torch.no_grad():
        got = linear(torch.from_numpy(x)).double().numpy()
    expected = x.astype(np.float64) @ weight.astype(np.float64).T
    weight_error = oracle.step_rms(weight, target) / np.sqrt(np.mean(np.square(weight)))
    bound = np.hypot(weight_error, activation_error(x, target)) * SLACK
    error = relative_error(got - bias, expected)
    assert error <= bound, f"output error {error:.4f}, bound {bound:.4f}"


@pytest.mark.parametrize("form", ["comfy_quant", "metadata"])
@pytest.mark.parametrize("target", TARGETS)
def test_linear_output(converted, comfy, torch, rng, target, form):
    before, output = converted
    layers = linears.load(comfy, torch, output, SIZES, form=form, disabled=DISABLED)
    for name, linear in layers.items():
        weight = before[name + ".weight"].array()
        bias = 0 if name == NO_BIAS else before[name + ".bias"].array()
        x = rng.standard_normal((64, weight.shape[1])).astype(np.float32)
        check_output(torch, linear, weight, bias, x, target)

        # Negative control: what multiplies every code, 40 % off.
        params = linear.weight._params
        scale = params.s_channel if hasattr(params, "s_channel") else params.scale
        if target == "mxfp8":
            scale = scale.view(torch.uint8)
            scale += 1  # twice the value
        else:
            scale.mul_(1.4)
        with pytest.raises(AssertionError, match="output error"):
            check_output(torch, linear, weight, bias, x, target)


@pytest.mark.parametrize("target", TARGETS)
def test_dequantized_weight_is_ours(converted, mezzotint, comfy, torch, tmp_path, target):
    """ComfyUI and the program decode the file to the same float32 values."""
    _, output = converted
    ours = mezzotint.convert(output, "fp32", tmp_path / "plain.safetensors",
                             extra=["--preset", "none"])
    for name, linear in linears.load(comfy, torch, output, SIZES, disabled=DISABLED).items():
        expected = linear.weight.dequantize().float().numpy()
        got = ours.tensors[name + ".weight"].array()
        # Rotations add in another order; else two products may be rounded in another order.
        ulps = 2.0 ** -20 if target in ROTATED else 2.0 ** -22
        largest = np.abs(expected).max()
        assert np.abs(got - expected).max() <= ulps * largest, name
        assert np.abs(got * np.float32(1.001) - expected).max() > ulps * largest, name


def test_mxfp8_leaves_out_what_comfyui_cannot_run(mezzotint, comfy, torch, rng, tmp_path):
    """A bias and N % 32 != 0: ComfyUI adds the bias to the padded product. Such layers stay as they are."""
    tensors = {}
    for name, shape in SIZES.items():
        tensors[name + ".weight"] = container.bf16(rng.standard_normal(shape))
        tensors[name + ".bias"] = container.bf16(rng.standard_normal(shape[0]))
    source = container.write(tmp_path / "in.safetensors", tensors)
    file = mezzotint.convert(source, "mxfp8", tmp_path / "out.safetensors", include=INCLUDE)
    assert set(container.layers(file)) == set(SIZES) - {NO_BIAS}
    assert file.tensors[NO_BIAS + ".weight"] == tensors[NO_BIAS + ".weight"]
