"""Adapters beside layers: nn::Bypass against closed forms, ComfyUI's bypass hooks and LyCORIS's bypass_forward."""

import subprocess

import numpy as np
import pytest

from peerlib import adapters, bypass, container
from test_adapters import FAR, NEAR, layer_of, lycoris_cases, lycoris_file, lycoris_module, rows_and_kinds

# What replaces a weight, or mixes the positions of its kernel, has no bypass; Bypass.SaysWhatItCannotDo.
MERGED_ONLY = {"glora conv1d old", "glora conv2d old", "glora conv3d old"}
CASES = [case for case in adapters.cases() if case.algorithm != "set" and case.name not in MERGED_ONLY]
CONVOLUTION = {"stride": 2, "padding": 1}
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
ALL = ("linear", *CONVOLUTIONS)


def input_of(torch, case):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 6, *[5] * (case.weight.ndim - 2), generator=generator)


def options_of(weight, **options):
    return options if weight.ndim > 2 else {}


def facts_of(weight, bias, **options):
    spread = {key: [value] * (weight.ndim - 2) if key in ("stride", "padding", "dilation") else value
              for key, value in options_of(weight, **options).items()}
    return {"shape": list(weight.shape), "bias": bias is not None, **spread}


def expected_of(torch, weight, x, bias=None, **options):
    with torch.no_grad():
        return adapters.torch_layer(torch, weight, bias, **options_of(weight, **options))(x).double().numpy()


@pytest.fixture(scope="module", params=["no bias", "bias"])
def outputs(request, bypass_layers, torch, tmp_path_factory):
    """(bias, case -> what nn::Bypass gives)"""
    bias = np.linspace(-3, 3, 8) if request.param == "bias" else None
    found = {}
    for index, some in enumerate(adapters.groups(CASES)):
        folder = tmp_path_factory.mktemp(f"bypass-{index}")
        base = adapters.write_base(folder / "base.safetensors", some, bias=bias)
        lora = adapters.write_adapter(folder / "adapter.safetensors", some)
        (out, _), left_out = bypass.run(
            bypass_layers, folder, base, {case.layer: facts_of(case.weight, bias, **CONVOLUTION) for case in some},
            {case.layer: input_of(torch, case).numpy() for case in some}, [[f"{lora}:{some[0].strength}"]])
        assert not left_out, left_out
        found.update({case.name: out[case.layer] for case in some})
    return bias, found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bypass_is_the_layer_with_the_merged_weight(outputs, torch, case):
    bias, found = outputs
    x = input_of(torch, case)
    expected = expected_of(torch, case.expected, x, bias, **CONVOLUTION)
    assert adapters.error(found[case.name], expected) < NEAR
    assert adapters.error(expected_of(torch, case.weight, x, bias, **CONVOLUTION), expected) > 1e-3


# What ComfyUI's hooks do with the cases on layers without bias, where they are not right.
COMFYUI_BYPASS_FAULTS = {
    "raises": rows_and_kinds("loha", "core", kinds=("conv1d", "conv3d")) |
    rows_and_kinds("lokr", "full, low", "low, low", "core", "DoRA", kinds=CONVOLUTIONS) |  # w2_b taken for a kernel
    rows_and_kinds("oft", "", "half", "rescaled", "rescaled, half", "large blocks", "bound", "bound per row", kinds=ALL) |
    rows_and_kinds("glora", "", "old", kinds=("linear",)) | rows_and_kinds("glora", "core", kinds=CONVOLUTIONS),
    "not read": rows_and_kinds("ia3", "output", "input") | rows_and_kinds("diff", ""),
    "differs": rows_and_kinds("dora", "rows, 1.0", "rows, 0.5", "columns, 1.0", "columns, 0.5", "PEFT") |
    rows_and_kinds("loha", "DoRA") | rows_and_kinds("lokr", "DoRA", kinds=("linear",)) |  # magnitudes are ignored
    rows_and_kinds("lokr", "low, low", kinds=("linear",)) |  # the rank of the wrong side
    rows_and_kinds("boft", "bound per row"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_comfyui_bypasses_the_same_or_is_wrong_as_described(outputs, comfy, torch, case):
    bias, found = outputs
    kind = next((kind for kind, names in COMFYUI_BYPASS_FAULTS.items() if case.name in names), "right")
    if bias is not None and case.algorithm == "boft":
        kind = "differs"  # it rotates the bias, too
    why, theirs = bypass.hooked(torch, comfy, case.weight, case.tensors, case.strength, input_of(torch, case), bias,
                                **options_of(case.weight, **CONVOLUTION))
    if kind == "right":
        assert not why and adapters.error(found[case.name], theirs) < NEAR
    elif kind == "differs":
        assert not why and adapters.error(found[case.name], theirs) > 1e-3
    else:
        assert why.startswith(kind)


# What LyCORIS's own bypass cannot do: magnitudes, and training whole weights.
LYCORIS = [case for case in lycoris_cases() if case[2] != "FullModule" and "DoRA" not in case[1]]


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind", ALL)
def test_lycoris_bypasses_the_same(bypass_layers, lycoris, torch, tmp_path, kind, bias):
    weight = layer_of(torch, kind).weight.numpy()
    bias = np.linspace(-1, 1, 32) if bias else None
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, *[6] * (weight.ndim - 2), generator=generator)
    cases = [case for case in LYCORIS if case[0] == kind]
    tensors = {}
    for index in range(len(cases)):
        tensors[f"layer{index}.weight"] = container.f32(weight)
        if bias is not None:
            tensors[f"layer{index}.bias"] = container.f32(bias)
    base = container.write(tmp_path / "base.safetensors", tensors)
    runs, expected, rotates = [], [], []
    for index, (_, what, cls, options) in enumerate(cases):
        module = lycoris_module(torch, lycoris, kind, cls, options, bias)
        arguments = '{"rs_lora": "True"}' if options.get("rs_lora") else ""
        runs.append([str(lycoris_file(module, tmp_path / f"{index}.safetensors", f"layer{index}", arguments))])
        rotates.append(cls in ("DiagOFTModule", "ButterflyOFTModule"))
        with torch.no_grad():
            expected.append(module.bypass_forward(x).double().numpy())
    names = [f"layer{index}" for index in range(len(cases))]
    out, left_out = bypass.run(bypass_layers, tmp_path, base, {name: facts_of(weight, bias) for name in names},
                               {name: x.numpy() for name in names}, runs)
    assert not left_out, left_out
    for index, (_, what, _, _) in enumerate(cases):
        got, plain = out[index][names[index]], out[-1][names[index]]
        assert adapters.error(plain, expected[index]) > FAR, what
        if rotates[index] and bias is not None:
            assert adapters.error(got, expected[index]) > FAR, f"{what}: LyCORIS rotates the bias, too"
        else:
            assert adapters.error(got, expected[index]) < NEAR, what


# --- Wan, the whole model ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wan(comfy, torch, tmp_path_factory):
    """(folder with model.safetensors and inputs.safetensors, ComfyUI's arguments of a forward)"""
    from safetensors.torch import save_file
    from test_wan import SMALL, random_model
    folder = tmp_path_factory.mktemp("wan")
    model = random_model(**{**SMALL, "text_dim": 4096, "freq_dim": 256})  # what ComfyUI's loader takes for granted
    generator = torch.Generator().manual_seed(1)
    inputs = {"x": torch.randn(1, 16, 2, 6, 8, generator=generator), "timestep": torch.tensor([700.0]),
              "context": torch.randn(1, 9, 4096, generator=generator)}
    save_file({name: p.contiguous() for name, p in model.state_dict().items()}, folder / "model.safetensors")
    save_file(inputs, folder / "inputs.safetensors")
    return folder, inputs


def wan_adapter(path, seed, down=True):
    """LoRA, LoHa and LoKr over the layers of both blocks, under kohya's names; `down`: also over ffn.2."""
    from test_adapter_models import factors
    tensors = {}
    for block in range(2):
        layers = [(f"{attention}_{part}", 256, 256) for attention in ("self_attn", "cross_attn") for part in "qkvo"]
        for index, (name, rows, columns) in enumerate([*layers, ("ffn_0", 512, 256), ("ffn_2", 256, 512)][:9 + down]):
            algorithm = ("lora", "loha", "lokr")[index % 3]
            parts = factors(np.random.default_rng([seed, block, index]), algorithm, (rows, columns))
            for suffix, values in parts.items():
                values = values if suffix == ".alpha" else values * (6 if algorithm == "lokr" else 2)
                tensors[f"lora_unet_blocks_{block}_{name}{suffix}"] = container.f32(values)
    return container.write(path, tensors)


def comfy_wan(comfy, torch, path, loras, inputs):
    """ComfyUI's model, adapters in bypass."""
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32}, disable_dynamic=True)
    for lora, strength in loras:
        patcher, _ = comfy.sd.load_bypass_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(lora)), strength, 0.0)
    patcher.inject_model()
    with torch.no_grad():
        y = patcher.model.diffusion_model(inputs["x"], inputs["timestep"], inputs["context"])
    patcher.eject_model()
    return y.double().numpy()


def our_wan(program, folder, model, loras, *extra):
    out = folder / "out.safetensors"
    arguments = [word for lora, strength in loras for word in ("--lora", f"{lora}:{strength}")]
    done = subprocess.run([program, "wan", model, folder / "inputs.safetensors", "-o", out, "--dtype", "fp32", "--heads", "2",
                           "-f", *arguments, *extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return container.read(out).tensors["out"].array().astype(np.float64), done.stdout


def distance(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


# What the base's own arithmetic allows. int8 rounds its inputs, on either side of ties that differ by 1e-7.
@pytest.mark.parametrize("target, bound", [("", 1e-5), ("float8_e4m3fn", 1e-5), ("int8_row", 0.01)])
def test_wan_with_a_lora_beside_it(mezzotint, mezzotint_run, comfy, torch, wan, tmp_path, target, bound):
    folder, inputs = wan
    model = folder / "model.safetensors"
    if target:
        # On a CPU, ComfyUI decodes fp8 weights and rounds no inputs; the flag asks ours for the same.
        extra = ["--full-precision-matrix-mult"] if target.startswith("float8") else []
        mezzotint.convert(model, target, tmp_path / "model.safetensors", extra=extra)
        model = tmp_path / "model.safetensors"
    down = target != "int8_row"  # test_comfyui_forgets_adapters_of_folded_layers
    lora, other = (wan_adapter(tmp_path / f"{seed}.safetensors", seed, down) for seed in (1, 2))
    theirs = comfy_wan(comfy, torch, model, [(lora, 0.8)], inputs)
    ours, said = our_wan(mezzotint_run, folder, model, [(lora, 0.8)])
    assert f"strength 0.8, beside {18 + 2 * down} weights" in said
    plain, _ = our_wan(mezzotint_run, folder, model, [])
    assert distance(ours, theirs) <= bound
    assert distance(plain, comfy_wan(comfy, torch, model, [], inputs)) <= bound
    assert distance(plain, ours) > 0.05 > 3 * bound
    weaker, _ = our_wan(mezzotint_run, folder, model, [(lora, 0.7)])
    assert distance(weaker, theirs) > 1.5 * bound

    # ComfyUI keeps the second adapter alone; ours are both there, as they are when merged.
    both, _ = our_wan(mezzotint_run, folder, model, [(lora, 0.8), (other, -0.5)])
    last, _ = our_wan(mezzotint_run, folder, model, [(other, -0.5)])
    theirs = comfy_wan(comfy, torch, model, [(lora, 0.8), (other, -0.5)], inputs)
    assert distance(last, theirs) <= bound and distance(both, theirs) > 0.05
    if not target:
        merged = tmp_path / "merged.safetensors"
        mezzotint.run("merge", model, "-o", merged, "--lora", f"{lora}:0.8", "--lora", f"{other}:-0.5", "--no-dampen", "--strict")
        assert distance(our_wan(mezzotint_run, folder, merged, [])[0], both) <= bound


def test_comfyui_forgets_adapters_of_folded_layers(mezzotint, mezzotint_run, comfy, torch, wan, tmp_path):
    """It computes ffn.2 of int8 models together with the GELU in front of it, past the module's forward and its hook."""
    folder, inputs = wan
    model = tmp_path / "model.safetensors"
    mezzotint.convert(folder / "model.safetensors", "int8_row", model)
    whole, part = (wan_adapter(tmp_path / f"{down}.safetensors", 1, down) for down in (True, False))
    theirs = [comfy_wan(comfy, torch, model, [(lora, 0.8)], inputs) for lora in (whole, part)]
    ours = [our_wan(mezzotint_run, folder, model, [(lora, 0.8)])[0] for lora in (whole, part)]
    assert np.array_equal(theirs[0], theirs[1])
    assert distance(ours[1], theirs[1]) < 0.01 and distance(ours[0], ours[1]) > 0.1
    assert distance(ours[0], comfy_wan(comfy, torch, folder / "model.safetensors", [(whole, 0.8)], inputs)) < 0.01


def test_what_has_no_place_is_said(mezzotint_run, wan, tmp_path):
    folder, _ = wan
    lora = container.write(tmp_path / "lora.safetensors", {
        "diffusion_model.blocks.0.ffn.0.lora_up.weight": container.f32(np.ones((512, 1))),
        "diffusion_model.blocks.0.ffn.0.lora_down.weight": container.f32(np.ones((1, 256))),
        "diffusion_model.blocks.7.ffn.0.lora_up.weight": container.f32(np.ones((512, 1))),
        "diffusion_model.blocks.7.ffn.0.lora_down.weight": container.f32(np.ones((1, 256))),
        "diffusion_model.blocks.0.ffn.2.unheard_of": container.f32(np.ones(3))})
    done = subprocess.run([mezzotint_run, "wan", folder / "model.safetensors", folder / "inputs.safetensors", "-o",
                           tmp_path / "out.safetensors", "--heads", "2", "-q", "--lora", lora], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and not done.stdout
    assert "blocks.7.ffn.0" in done.stderr and "unheard_of" in done.stderr and "blocks.0.ffn.0" not in done.stderr
    done = subprocess.run([mezzotint_run, "wan", folder / "model.safetensors", folder / "inputs.safetensors", "-o",
                           tmp_path / "out.safetensors", "-f", "--lora", folder / "inputs.safetensors"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1 and "it holds no adapter" in done.stderr
