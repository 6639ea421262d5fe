"""Codes and scales equal comfy-kitchen's eager backend, byte for byte."""

import numpy as np
import pytest

from peerlib import container, oracle

SHAPES = [(1, 1), (3, 17), (217, 256), (256, 512), (1, 300), (300, 1), (64, 33)]
INCLUDE = r"^blocks\..*\.weight$"
FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]
INT8 = ["int8_tensorwise", "int8_row"]


# Target -> (largest code, values halfway between two codes).
HALFWAY = {n: (row[4], (oracle.TABLES[n][1:] + oracle.TABLES[n][:-1]) / 2)
           for n, row in oracle.FLOAT8.items()}
HALFWAY["int8"] = (127.0, np.arange(127) + 0.5)


def ties(rng, shape, target):
    """Values within two ulps of a rounding boundary: every ulp decides a code."""
    top, halfway = HALFWAY[target]
    # Of many scales, the one whose reciprocal is rounded most.
    candidates = rng.uniform(0.1, 10, 256).astype(np.float32)
    scales = candidates / np.float32(top)
    lost = np.abs((np.float32(1) / scales).astype(np.float64) * scales - 1)
    largest, scale = candidates[lost.argmax()], np.float64(scales[lost.argmax()])
    w = (rng.choice(halfway, shape) * scale).astype(np.float32)
    w = (w.view(np.int32) + rng.integers(-2, 3, shape, dtype=np.int32)).view(np.float32)
    w *= rng.choice(np.array([-1, 1], np.float32), shape)
    w[:, 0] = largest  # also the amax of every row
    return w


def weights(rng):
    """name -> float32 weight. Every shape times every kind of data."""
    kinds = {
        "normal": lambda s: rng.standard_normal(s) * 10 ** rng.uniform(-4, 1),
        "heavy": lambda s: rng.standard_t(2, s) * 0.02,
        "lognormal": lambda s: rng.standard_normal(s) * np.exp(rng.normal(0, 4, s)),
        "outlier": lambda s: np.where(np.arange(np.prod(s)).reshape(s) == np.prod(s) // 2,
                                      1e4, rng.standard_normal(s)),
        "huge": lambda s: rng.standard_normal(s) * 1e37,
        "tiny": lambda s: rng.standard_normal(s) * 1e-32,
        "denormal": lambda s: rng.standard_normal(s) * 1e-40,
        "codes": lambda s: rng.integers(-448, 449, s) / 8,
        "zero_rows": lambda s: rng.standard_normal(s) * (np.arange(s[0]) % 2)[:, None],
        "negative_zero": lambda s: np.where(rng.random(s) < 0.5, -0.0, rng.standard_normal(s)),
        "ties_e4m3": lambda s: ties(rng, s, "float8_e4m3fn"),
        "ties_e5m2": lambda s: ties(rng, s, "float8_e5m2"),
        "ties_int8": lambda s: ties(rng, s, "int8"),
        "zero": lambda s: np.where(rng.random(s) < 0.5, -0.0, 0.0),
    }
    out = {}
    for kind, make in kinds.items():
        for n, shape in enumerate(SHAPES):
            with np.errstate(under="ignore"):
                w = np.asarray(make(shape), np.float32)
            out[f"blocks.{n}.{kind}"] = np.ascontiguousarray(w)
    return out


def store(path, values, pack):
    return container.write(path, {n + ".weight": pack(w) for n, w in values.items()})


def f16(values):
    a = np.ascontiguousarray(values, "<f2")
    return container.Tensor("F16", a.shape, a.tobytes())


PACK = {"F32": container.f32, "BF16": container.bf16, "F16": f16}


def kitchen_quantize(kitchen, torch, w, target):
    x = torch.from_numpy(w.copy())
    if target in FLOAT8:
        layout, options = kitchen.TensorCoreFP8Layout, {"dtype": getattr(torch, target)}
    else:
        layout, options = kitchen.TensorWiseINT8Layout, {"per_channel": target == "int8_row"}
    codes, params = layout.quantize(x, **options)
    return codes.view(torch.uint8).numpy(), params.scale.numpy()


def compare(kitchen, torch, file, values, target):
    """Assert equality; returns how many codes were compared."""
    compared = 0
    for layer, w in values.items():
        got = file.tensors[layer + ".weight"].codes()
        scale = file.tensors[layer + ".weight_scale"]
        assert scale.dtype == "F32", layer
        expected, expected_scale = kitchen_quantize(kitchen, torch, w, target)
        if target in FLOAT8 and oracle.reciprocal_overflows(oracle.float8_scale(w, target)):
            # comfy-kitchen's fault: NaN for zeros, +-max for all else.
            assert_sound(layer, w, got, scale, target)
            continue
        assert scale.shape == expected_scale.shape, layer
        assert scale.data == expected_scale.astype("<f4").tobytes(), layer
        different = int((got != expected).sum())
        assert different == 0, f"{layer}: {different} of {got.size} codes differ"
        compared += got.size
    return compared


def assert_sound(layer, w, codes, scale, target):
    assert scale.shape == (), layer
    value = float(scale.array())
    assert np.isfinite(value) and value > 0, layer
    decoded = oracle.decode_float8(codes, target) * value  # asserts: no NaN code
    assert not decoded[w == 0].any(), layer
    assert (np.signbit(decoded) == np.signbit(w)).all(), layer
    half_step = 2.0 ** -(oracle.FLOAT8[target][1] + 1)
    error = np.abs(decoded - w.astype(np.float64))
    assert (error <= half_step * np.abs(w.astype(np.float64)) + value).all(), layer


@pytest.mark.parametrize("dtype", list(PACK))
@pytest.mark.parametrize("target", FLOAT8 + INT8)
def test_bytes_equal_kitchen(producer, kitchen, torch, rng, tmp_path, target, dtype):
    values = weights(rng)
    if dtype == "F16":  # what f16 cannot hold would become inf
        values = {n: w for n, w in values.items() if np.abs(w).max(initial=0) < 6e4}
    source = store(tmp_path / "in.safetensors", values, PACK[dtype])
    # The quantizer sees the stored values, widened to float32.
    stored = container.read(source).tensors
    values = {n: np.ascontiguousarray(stored[n + ".weight"].array(), np.float32)
              for n in values}
    file = producer.convert(source, target, tmp_path / "out.safetensors", include=INCLUDE)
    compared = compare(kitchen, torch, file, values, target)
    total = sum(w.size for w in values.values())
    assert compared > total // 2

    # Negative controls: one code off by one step, and a scale off by an ulp.
    layer = "blocks.3.normal"
    one = {layer: values[layer]}
    for key in (".weight", ".weight_scale"):
        tensor = file.tensors[layer + key]
        broken = bytearray(tensor.data)
        broken[len(broken) // 2 // 4 * 4] ^= 1
        changed = dict(file.tensors) | {layer + key: tensor._replace(data=bytes(broken))}
        with pytest.raises(AssertionError):
            compare(kitchen, torch, container.File(changed, {}), one, target)


@pytest.mark.parametrize("target", FLOAT8 + INT8)
def test_the_data_tells_near_formulas_apart(kitchen, torch, rng, target):
    """Negative control: w/scale for w*(1/scale), and the other way round."""
    kind = "int8" if target in INT8 else target
    w = ties(rng, (217, 256), kind)
    expected, scale = kitchen_quantize(kitchen, torch, w, target)
    if target in FLOAT8:
        top = np.float32(oracle.FLOAT8[target][4])
        right = oracle.encode_float8(np.clip(w * (np.float32(1) / scale), -top, top), target)
        wrong = oracle.encode_float8(np.clip(w / scale, -top, top), target)
    else:
        right = np.rint(w / scale).astype(np.int8).view(np.uint8)
        wrong = np.rint(w * (np.float32(1) / scale)).astype(np.int8).view(np.uint8)
    assert (right == expected).all()
    assert (wrong != expected).sum() > 100


@pytest.mark.parametrize("target", FLOAT8 + INT8)
def test_zero_weight_has_zero_codes_and_a_finite_scale(producer, rng, tmp_path, target):
    zero = {"blocks.0.zero": np.zeros((16, 32), np.float32),
            "blocks.0.other": rng.standard_normal((16, 32)).astype(np.float32)}
    source = store(tmp_path / "in.safetensors", zero, container.bf16)
    file = producer.convert(source, target, tmp_path / "out.safetensors", include=INCLUDE)
    scale = file.tensors["blocks.0.zero.weight_scale"].array()
    assert np.isfinite(scale).all() and (scale > 0).all()
    assert not file.tensors["blocks.0.zero.weight"].codes().any()
    assert file.tensors["blocks.0.other.weight"].codes().any()


@pytest.mark.parametrize("target", FLOAT8)
def test_comfyui_recalculate_is_the_same_rule(comfy, kitchen, torch, rng, target):
    """ComfyUI's layouts, asked to recalculate, give what kitchen gives."""
    layout = {"float8_e4m3fn": comfy.quant_ops.TensorCoreFP8E4M3Layout,
              "float8_e5m2": comfy.quant_ops.TensorCoreFP8E5M2Layout}[target]
    for layer, w in weights(rng).items():
        if "zero" == layer.split(".")[-1]:
            continue
        codes, params = layout.quantize(torch.from_numpy(w.copy()), scale="recalculate")
        expected, scale = kitchen_quantize(kitchen, torch, w, target)
        assert params.scale.numpy().tobytes() == scale.tobytes(), layer
        assert (codes.view(torch.uint8).numpy() == expected).all(), layer


def test_int8_blockwise_is_the_rint_formula(producer, rng, tmp_path):
    """comfy-kitchen lacks it: the formula of the format's definition instead."""
    values = {"blocks.0.a": rng.standard_normal((256, 384)).astype(np.float32) * 0.02,
              "blocks.0.heavy": (rng.standard_t(2, (128, 256)) * 0.02).astype(np.float32),
              "blocks.0.zero": np.zeros((128, 128), np.float32)}
    source = store(tmp_path / "in.safetensors", values, container.f32)
    file = producer.convert(source, "int8_blockwise", tmp_path / "out.safetensors",
                            include=INCLUDE)
    marks = container.layers(file)
    for layer, w in values.items():
        assert marks[layer]["format"] == "int8_blockwise"
        assert marks[layer]["group_size"] == 128
        codes, scale = oracle.quantize_int8_blockwise(w, 128)
        assert file.tensors[layer + ".weight_scale"].data == scale.astype("<f4").tobytes()
        assert file.tensors[layer + ".weight"].data == codes.tobytes()
