"""`mezzotint merge` of every algorithm, against ComfyUI's comfy.weight_adapter, LyCORIS's modules and closed forms.

Where another program is right the answers must be the same; where it is not (docs/differences.md lists why), they must
differ, and ours is that of the closed form in float64.
"""

import numpy as np
import pytest

from peerlib import adapters, container

CASES = adapters.cases()
NEAR = 1e-5   # float32 arithmetic in another order
FAR = 1e-2


@pytest.fixture(scope="module")
def merged(mezzotint, tmp_path_factory):
    """(name of a case, dtype of the base) -> what `mezzotint merge` writes for it."""
    found = {}
    for dtype, make in (("fp32", container.f32), ("bf16", container.bf16)):
        for index, some in enumerate(adapters.groups(CASES)):
            folder = tmp_path_factory.mktemp(f"{dtype}-{index}")
            base = adapters.write_base(folder / "base.safetensors", some, make)
            lora = adapters.write_adapter(folder / "adapter.safetensors", some)
            mezzotint.run("merge", base, "-o", folder / "out.safetensors", "--lora", f"{lora}:{some[0].strength}", "--strict")
            out = container.read(folder / "out.safetensors").tensors
            for case in some:
                found[case.name, dtype] = out[f"{adapters.BASE}{case.layer}.weight"]
    return found


def rows_and_kinds(algorithm, *labels, kinds=("linear", "conv1d", "conv2d", "conv3d")):
    return {f"{algorithm} {kind} {label}".strip() for kind in kinds for label in labels}


# What ComfyUI's merge does with the cases that it does not merge as their closed form says. Rows of docs/differences.md.
COMFYUI_FAULTS = {
    # Cores of conv1d and conv3d: its loop over the kernel knows two dimensions.
    "raises": rows_and_kinds("lora", "core", kinds=("conv1d", "conv3d")) |
    rows_and_kinds("loha", "core", kinds=("conv1d", "conv3d")) |
    rows_and_kinds("lokr", "core", kinds=("conv1d", "conv3d")) |
    rows_and_kinds("lokr", "kernel in w2_b", kinds=("conv1d", "conv2d", "conv3d")),
    # Logged inside, and the weight left as it was.
    "dropped": rows_and_kinds("lokr", "core", kinds=("conv2d",)) |
    rows_and_kinds("glora", "core", kinds=("conv1d", "conv2d", "conv3d")) |
    rows_and_kinds("boft", "half"),  # no alpha
    "not read": rows_and_kinds("ia3", "output", "input"),
    "differs": rows_and_kinds("dora", "rows, 1.0", "rows, 0.5", "PEFT") | rows_and_kinds("loha", "DoRA") |
    rows_and_kinds("lokr", "DoRA") |  # lengths of W, not of W + delta
    rows_and_kinds("lokr", "full, full", "low, full", kinds=("conv1d", "conv3d")) |  # axes
    rows_and_kinds("oft", "half", "rescaled", "rescaled, half", "large blocks", "bound per row") |  # strength twice, no rescale
    rows_and_kinds("boft", "bound per row"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_merges_equal_the_closed_form(merged, case):
    got = merged[case.name, "fp32"]
    assert got.dtype == "F32" and adapters.error(got.array(), case.expected) < NEAR
    assert adapters.error(case.weight, case.expected) > FAR, "the weight itself would pass"
    half = merged[case.name, "bf16"]
    assert half.dtype == "BF16"
    assert_rounded_once(half.array(), case.expected)


def assert_rounded_once(got, expected):
    """The nearest bf16, or its neighbour where float32 arithmetic ends on the other side of a tie."""
    nearest = container.bf16(expected).array()
    tiny = 1e-6 * np.abs(expected).max()
    assert np.all(np.abs(got - nearest) <= 2 ** -7 * np.abs(expected) + tiny)
    assert np.mean(np.abs(got - nearest) > tiny) < 0.05


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_comfyui_merges_the_same_or_is_wrong_as_described(merged, comfy, torch, case):
    kind = next((kind for kind, names in COMFYUI_FAULTS.items() if case.name in names), "right")
    why, theirs = adapters.comfy_merge(comfy, torch, case.weight, case.tensors, case.strength)
    ours = merged[case.name, "fp32"].array().astype(np.float64)
    if kind == "right":
        assert not why and adapters.error(theirs, ours) < NEAR
    elif kind == "differs":
        assert not why and adapters.error(theirs, ours) > FAR
    elif kind == "dropped":
        assert why == "dropped" and adapters.error(theirs, case.weight) == 0
    else:
        assert why.startswith(kind)


@pytest.mark.parametrize("case", [case for case in CASES if not any(case.name in names for names in COMFYUI_FAULTS.values())],
                         ids=lambda case: case.name)
def test_comfyui_rounds_to_bf16_the_same(merged, comfy, torch, case):
    _, theirs = adapters.comfy_merge(comfy, torch, case.weight, case.tensors, case.strength)
    assert_rounded_once(merged[case.name, "bf16"].array(), theirs)


# --- files that LyCORIS writes ----------------------------------------------------------------------------------------
def lycoris_cases():
    """(what, class, options of its maker)"""
    for kind in ("linear", "conv1d", "conv2d", "conv3d"):
        tucker = [("core", {"use_tucker": True})] if kind != "linear" else []
        dora = [("DoRA rows", {"weight_decompose": True, "wd_on_out": True}),
                ("DoRA columns", {"weight_decompose": True, "wd_on_out": False})]
        for what, options in [("", {}), ("rs", {"rs_lora": True}), ("scalar", {"use_scalar": True}), *dora, *tucker]:
            yield kind, f"lora {what}".strip(), "LoConModule", options
            yield kind, f"loha {what}".strip(), "LohaModule", options
            yield kind, f"lokr {what}".strip(), "LokrModule", {"factor": 4, "lora_dim": 2, **options}
        yield kind, "lokr both", "LokrModule", {"factor": 4, "decompose_both": True, "lora_dim": 1}
        yield kind, "lokr full", "LokrModule", {"factor": 4, "full_matrix": True}
        yield kind, "lokr full rs", "LokrModule", {"factor": 4, "full_matrix": True, "rs_lora": True}
        for what, options in (("", {}), ("rescaled", {"rescaled": True}), ("bound", {"constraint": 0.02})):
            yield kind, f"oft {what}".strip(), "DiagOFTModule", options
            yield kind, f"boft {what}".strip(), "ButterflyOFTModule", options
        yield kind, "glora", "GLoRAModule", {}
        yield kind, "glora rs", "GLoRAModule", {"rs_lora": True}
        yield kind, "full", "FullModule", {}


LYCORIS_METADATA = {"ss_network_module": "lycoris.kohya"}


def layer_of(torch, kind, bias=None):
    rng = np.random.default_rng(3)
    kernel = {"linear": (), "conv1d": (3,), "conv2d": (3, 2), "conv3d": (2, 1, 3)}[kind]
    return adapters.torch_layer(torch, rng.standard_normal((32, 16, *kernel)) / 4, bias)


def lycoris_module(torch, lycoris, kind, cls, options, bias=None):
    """A module that was trained: every parameter random."""
    layer = layer_of(torch, kind, bias)
    torch.manual_seed(7)
    options = {"lora_dim": 4, "alpha": 2, **options}
    module = getattr(lycoris, cls)("x", layer, 1.0, **({} if cls == "FullModule" else options))
    if cls == "FullModule":
        module.apply_to()  # its parameter is the whole weight from here on
    size = 0.6 if options.get("use_tucker") else 0.3
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "dora_scale":
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif name == "scalar":
                parameter.fill_(0.8)
            elif name == "rescale" or cls == "FullModule":
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(size * torch.randn_like(parameter))
    return module.eval()


def lycoris_file(module, path, key, arguments=""):
    tensors = {f"{key}.{name}": container.f32(value.detach().numpy()) for name, value in module.state_dict().items()}
    metadata = {**LYCORIS_METADATA, **({"ss_network_args": arguments} if arguments else {})}
    return container.write(path, tensors, metadata)


@pytest.mark.parametrize("kind, what, cls, options", list(lycoris_cases()), ids=lambda v: v if isinstance(v, str) else "")
def test_files_of_lycoris_give_what_it_trained(mezzotint, torch, lycoris, tmp_path, kind, what, cls, options):
    weight = layer_of(torch, kind).weight.numpy()
    module = lycoris_module(torch, lycoris, kind, cls, options)
    arguments = '{"rs_lora": "True"}' if options.get("rs_lora") else ""
    lora = lycoris_file(module, tmp_path / "lora.safetensors", "lora_unet_block_0_proj", arguments)
    base = container.write(tmp_path / "base.safetensors", {f"{adapters.BASE}block.0.proj.weight": container.f32(weight)})
    mezzotint.run("merge", base, "-o", tmp_path / "out.safetensors", "--lora", lora, "--strict")
    got = container.read(tmp_path / "out.safetensors").tensors[f"{adapters.BASE}block.0.proj.weight"].array()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, *[6] * (weight.ndim - 2), generator=generator)
    with torch.no_grad():
        trained = module(x)
        merged = adapters.torch_layer(torch, got)(x)
        plain = adapters.torch_layer(torch, weight)(x)
    assert adapters.error(merged, trained.double().numpy()) < NEAR
    assert adapters.error(plain, trained.double().numpy()) > FAR
