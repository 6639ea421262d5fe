"""One test for each fault of ComfyUI's and LyCORIS's adapters (docs/differences.md): what they compute, that ours differs, and
that ours is the closed form in float64.

Faults that whole classes of cases show (cores, kernels in w2_b, dropped patches) are in the tables of test_adapters.py and
test_bypass.py.
"""

import logging

import numpy as np
import pytest

from peerlib import adapters, bypass, container
from test_adapters import FAR, NEAR, lycoris_file, lycoris_module
from test_bypass import facts_of

RNG_SEED = 11
O, I, R = 8, 6, 3


def normal(seed, *shape):
    return np.random.default_rng([RNG_SEED, seed]).standard_normal(shape).astype(np.float32).astype(np.float64)


@pytest.fixture
def merge(mezzotint, tmp_path):
    """(weight, tensors by suffix, strength) -> what `mezzotint merge` makes of the layer x."""
    def run(weight, tensors, strength=1.0, metadata=None, strict=True, stem="diffusion_model.x"):
        base = container.write(tmp_path / "base.safetensors", {adapters.BASE + "x.weight": container.f32(weight)})
        lora = container.write(tmp_path / "lora.safetensors",
                               {stem + suffix if suffix.startswith((".", "_")) else suffix: container.f32(value)
                                for suffix, value in tensors.items()}, metadata)
        said = mezzotint.run("merge", base, "-o", tmp_path / "out.safetensors", "--lora", f"{lora}:{strength}", "--force",
                             *(["--strict"] if strict else []))
        run.said = said
        return container.read(tmp_path / "out.safetensors").tensors[adapters.BASE + "x.weight"].array().astype(np.float64)
    return run


def lora_tensors(seed=0, outputs=O, inputs=I):
    return {".lora_up.weight": normal(seed + 1, outputs, R), ".lora_down.weight": normal(seed + 2, R, inputs)}


def loha_tensors(seed=0):
    return {".hada_w1_a": normal(seed + 3, O, R), ".hada_w1_b": normal(seed + 4, R, I), ".hada_w2_a": normal(seed + 5, O, R),
            ".hada_w2_b": normal(seed + 6, R, I)}


def lora_delta(t):
    return t[".lora_up.weight"] @ t[".lora_down.weight"]


def loha_delta(t):
    return (t[".hada_w1_a"] @ t[".hada_w1_b"]) * (t[".hada_w2_a"] @ t[".hada_w2_b"])


def cayley(blocks):
    q = blocks - np.swapaxes(blocks, -1, -2)
    eye = np.eye(q.shape[-1])
    return (eye + q) @ np.linalg.inv(eye - q)


def check(theirs, wrong, ours, right):
    """They compute `wrong`, we `right`, and these are not the same."""
    assert adapters.error(theirs, wrong) < NEAR
    assert adapters.error(ours, right) < NEAR
    assert adapters.error(wrong, right) > FAR


# --- what is read -----------------------------------------------------------------------------------------------------
def test_comfyui_keeps_one_of_two_algorithms_under_one_name(merge, comfy, torch):
    w, t = normal(0, O, I), {**lora_tensors(), **loha_tensors()}
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, w + loha_delta(t), merge(w, t), w + lora_delta(t) + loha_delta(t))


def test_comfyui_keeps_one_of_two_names_for_a_target(merge, comfy, torch):
    w, first, second = normal(0, O, I), lora_tensors(0), lora_tensors(20)
    both = {"lora_unet_x" + k: v for k, v in first.items()} | {"diffusion_model.x" + k: v for k, v in second.items()}
    patch = comfy.lora.load_lora({k: torch.tensor(v, dtype=torch.float32) for k, v in both.items()},
                                 {"lora_unet_x": "x.weight", "diffusion_model.x": "x.weight"})
    assert len(patch) == 1
    theirs = comfy.lora.calculate_weight([(1.0, patch["x.weight"], 1.0, None, None)], torch.tensor(w, dtype=torch.float32), "")
    check(theirs.numpy(), w + lora_delta(second), merge(w, both), w + lora_delta(first) + lora_delta(second))


def test_comfyui_names_the_bias_of_a_slice_wrongly(comfy, torch):
    """Ours: KeyMapTest.MatchesSaysWhatIsLeftOut, and Flux's biases in test_adapter_models."""
    patch = comfy.lora.load_lora({"x.diff_b": torch.ones(4)}, {"x": ("y.weight", (0, 0, 4))})
    assert list(patch) == ["().bias"]


def test_comfyui_ignores_peft_magnitudes(merge, comfy, torch):
    w, t = normal(0, O, I), {**{".lora_B.weight": normal(1, O, R), ".lora_A.weight": normal(2, R, I)},
                             ".lora_magnitude_vector": np.abs(normal(3, O)) + 1}
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    v = w + t[".lora_B.weight"] @ t[".lora_A.weight"]
    right = v / np.linalg.norm(v, axis=1, keepdims=True) * t[".lora_magnitude_vector"][:, None]
    check(theirs, v, merge(w, t), right)


def test_comfyui_reads_one_of_several_peft_adapters(merge, comfy, torch):
    w = normal(0, O, I)
    t = {f".lora_{side}.{name}.weight": normal(seed, *shape) for name, seed in (("default", 1), ("style", 5))
         for side, shape, seed in (("B", (O, R), seed), ("A", (R, I), seed + 1))}
    products = [t[f".lora_B.{name}.weight"] @ t[f".lora_A.{name}.weight"] for name in ("default", "style")]
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, w + products[0], merge(w, t), w + products[0] + products[1])


def test_comfyui_ignores_alphas_in_metadata(merge, comfy, torch):
    w, t = normal(0, O, I), {".lora_B.weight": normal(1, O, R), ".lora_A.weight": normal(2, R, I)}
    delta = t[".lora_B.weight"] @ t[".lora_A.weight"]
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    ours = merge(w, {f"transformer.x{k}": v for k, v in t.items()},
                 metadata={"lora_adapter_metadata": '{"transformer.lora_alpha": 6, "transformer.r": 3}'})
    check(theirs, w + delta, ours, w + 2 * delta)


def test_comfyui_takes_alpha_0_for_no_effect(merge, comfy, torch):
    w, t = normal(0, O, I), {**lora_tensors(), ".alpha": np.array(0.0)}
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, w, merge(w, t), w + lora_delta(t))


def test_comfyui_reshapes_factors_of_other_layers(merge, comfy, torch):
    w, t = normal(0, O, I), lora_tensors(outputs=I, inputs=O)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    assert adapters.error(theirs, w + lora_delta(t).reshape(O, I)) < NEAR
    with pytest.raises(AssertionError, match=r"it is made for a weight of 6x8, this is 8x6"):
        merge(w, t)


def test_comfyui_says_only_in_its_log_that_a_patch_was_dropped(merge, comfy, torch, caplog):
    w, t = normal(0, O, I), lora_tensors(outputs=O + 1)
    with caplog.at_level(logging.ERROR):
        why, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    assert why == "dropped" and adapters.error(theirs, w) == 0 and "ERROR lora" in caplog.text
    with pytest.raises(AssertionError, match=r"it is made for a weight of 9x6, this is 8x6"):
        merge(w, t)


def test_comfyui_replaces_at_strength_0(merge, comfy, torch):
    w, t = normal(0, O, I), {".set_weight": normal(1, O, I)}
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 0.0)
    check(theirs, t[".set_weight"], merge(w, t, 0), w)


# --- what is merged ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", [(3,), (2, 1, 3)], ids=["conv1d", "conv3d"])
def test_comfyui_misaligns_full_lokr_of_other_ranks(merge, comfy, torch, kernel):
    w, t = normal(0, O, I, *kernel), {".lokr_w1": normal(1, 2, 3), ".lokr_w2": normal(2, 4, 2, *kernel)}
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    wrong = w + np.kron(t[".lokr_w1"], t[".lokr_w2"]).reshape(w.shape)
    right = w + np.einsum("lm,pq...->lpmq...", t[".lokr_w1"], t[".lokr_w2"]).reshape(w.shape)
    check(theirs, wrong, merge(w, t), right)


def test_comfyui_takes_square_glora_for_the_old_layout(merge, comfy, torch):
    w, t = normal(0, 4, 4), {f".{name}.weight": normal(seed, 4, 4) for seed, name in enumerate(("a1", "a2", "b1", "b2"), 1)}
    a1, a2, b1, b2 = t.values()
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, w + w @ a2 @ a1 + b2 @ b1, merge(w, t), w + w @ a1 @ a2 + b1 @ b2)


@pytest.mark.parametrize("strength", [0.5, 0.9])
def test_comfyui_squares_the_strength_of_oft(merge, comfy, torch, strength):
    w, t = normal(0, O, I), {".oft_blocks": normal(1, 2, 4, 4)}
    turned = np.einsum("knm,kni->kmi", cayley(t[".oft_blocks"]), w.reshape(2, 4, I)).reshape(O, I)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, strength)
    check(theirs, w + strength ** 2 * (turned - w), merge(w, t, strength), w + strength * (turned - w))


def test_comfyui_ignores_oft_rescale(merge, comfy, torch):
    w, t = normal(0, O, I), {".oft_blocks": normal(1, 2, 4, 4), ".rescale": 1 + normal(2, O, 1) / 4}
    turned = np.einsum("knm,kni->kmi", cayley(t[".oft_blocks"]), w.reshape(2, 4, I)).reshape(O, I)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, turned, merge(w, t), turned * t[".rescale"])


def test_comfyui_drops_oft_in_half_precision(merge, comfy, torch):
    w, t = normal(0, O, I), {".oft_blocks": normal(1, 2, 4, 4)}
    patch = adapters.comfy_patch(comfy, torch, t)
    half = torch.tensor(w).to(torch.bfloat16)
    with adapters.ErrorsOf() as errors:
        got = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], half.clone(), "x", intermediate_dtype=torch.bfloat16)
    assert errors.messages and torch.equal(got, half)
    turned = np.einsum("knm,kni->kmi", cayley(t[".oft_blocks"]), w.reshape(2, 4, I)).reshape(O, I)
    assert adapters.error(merge(w, t), turned) < NEAR


def test_comfyui_applies_the_strength_of_boft_again(merge, comfy, torch):
    w, s = normal(0, O, I), 0.5
    t = {".oft_blocks": normal(1, 1, 2, 4, 4), ".alpha": np.array(0.0)}
    order = np.arange(O).reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1)
    rows = w[order].reshape(2, 4, I)
    mixed = s * np.einsum("nij,njk->nik", cayley(t[".oft_blocks"][0]), rows) + (1 - s) * rows
    right = np.empty_like(w)
    right[order] = mixed.reshape(O, I)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, s)
    check(theirs, w + s * (right - w), merge(w, t, s), right)


def test_comfyui_divides_by_the_lengths_of_the_base(merge, comfy, torch):
    w, t = normal(0, O, I), {**lora_tensors(), ".dora_scale": np.abs(normal(3, O, 1)) + 1}
    v = w + lora_delta(t)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, v * t[".dora_scale"] / np.linalg.norm(w, axis=1, keepdims=True), merge(w, t),
          v * t[".dora_scale"] / np.linalg.norm(v, axis=1, keepdims=True))


def test_comfyui_spreads_magnitudes_without_shape_over_columns(merge, comfy, torch):
    w, t = normal(0, I, I), {**lora_tensors(outputs=I), ".dora_scale": np.abs(normal(3, I)) + 1}
    v = w + lora_delta(t)
    why, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    right = v * t[".dora_scale"][:, None] / np.linalg.norm(v, axis=1, keepdims=True)
    assert why or adapters.error(theirs, right) > FAR
    assert adapters.error(merge(w, t), right) < NEAR


def test_comfyui_takes_magnitudes_of_inputs_for_one_of_outputs(merge, comfy, torch):
    w, t = normal(0, 1, I), {**lora_tensors(outputs=1), ".dora_scale": np.abs(normal(3, 1, I)) + 1}
    v = w + lora_delta(t)
    _, theirs = adapters.comfy_merge(comfy, torch, w, t, 1.0)
    check(theirs, v * t[".dora_scale"] / np.linalg.norm(w), merge(w, t), np.sign(v) * t[".dora_scale"])


def test_comfyui_adds_an_epsilon_to_lengths(merge, comfy, torch):
    """In float16, 9.8e-4: half of rows that short is lost."""
    w, t = 1e-3 * normal(0, O, I), {**{k: 0 * v for k, v in lora_tensors().items()}, ".dora_scale": np.ones((1, I))}
    patch = adapters.comfy_patch(comfy, torch, t)
    theirs = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], torch.tensor(w).half(), "x",
                                         intermediate_dtype=torch.float16)
    lengths = np.linalg.norm(theirs.double().numpy(), axis=0)
    assert np.all(lengths < 0.9)
    assert np.allclose(np.linalg.norm(merge(w, t), axis=0), 1, atol=1e-5)


# --- LyCORIS's own merge ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cls, options", [("LohaModule", {}), ("LokrModule", {"factor": 4, "lora_dim": 2})])
def test_lycoris_merges_loha_and_lokr_with_the_scale_squared(merge, lycoris, torch, tmp_path, cls, options):
    module = lycoris_module(torch, lycoris, "linear", cls, {"alpha": 1, **options})
    w = module.org_module[0].weight.double().numpy()
    trained = module(torch.eye(16)).T.detach().double().numpy()
    scale = float(module.scale)
    theirs = module.get_merged_weight()[0].detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    assert scale in (0.25, 0.5)
    check(theirs, w + scale * (trained - w), merge(w, tensors), trained)


def test_lycoris_keeps_the_delta_of_dora_at_strength_0(merge, lycoris, torch):
    module = lycoris_module(torch, lycoris, "linear", "LoConModule", {"weight_decompose": True, "wd_on_out": True})
    w = module.org_module[0].weight.double().numpy()
    module.multiplier = 0
    theirs = module.get_merged_weight(multiplier=0)[0].detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    assert adapters.error(theirs, w) > FAR and adapters.error(merge(w, tensors, 0), w) == 0


@pytest.mark.parametrize("cls", ["DiagOFTModule", "ButterflyOFTModule"])
def test_lycoris_rescales_in_full_at_any_strength(merge, lycoris, torch, cls):
    module = lycoris_module(torch, lycoris, "linear", cls, {"rescaled": True})
    w = module.org_module[0].weight.double().numpy()
    module.multiplier = 0
    theirs = module(torch.eye(16)).T.detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    wrong = w * module.rescale.detach().double().numpy()
    check(theirs, wrong, merge(w, tensors, 0, metadata={"ss_network_module": "lycoris.kohya"}), w)


def test_comfyui_bounds_rotations_of_lycoris_by_too_little(merge, comfy, lycoris, torch):
    """It stores the bound for one row; trained was rows times it."""
    module = lycoris_module(torch, lycoris, "linear", "DiagOFTModule", {"constraint": 0.02})
    w = module.org_module[0].weight.double().numpy()
    trained = module(torch.eye(16)).T.detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    _, theirs = adapters.comfy_merge(comfy, torch, w, tensors, 1.0)
    ours = merge(w, tensors, metadata={"ss_network_module": "lycoris.kohya"})
    assert adapters.error(ours, trained) < NEAR and adapters.error(theirs, trained) > FAR
    assert np.linalg.norm(theirs - w) < 0.1 * np.linalg.norm(trained - w), "almost nothing of it is left"


def test_comfyui_scales_stabilized_glora_of_lycoris_by_too_little(merge, comfy, lycoris, torch):
    module = lycoris_module(torch, lycoris, "linear", "GLoRAModule", {"rs_lora": True})
    w = module.org_module[0].weight.double().numpy()
    trained = module(torch.eye(16)).T.detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    _, theirs = adapters.comfy_merge(comfy, torch, w, tensors, 1.0)
    ours = merge(w, tensors, metadata={"ss_network_module": "lycoris.kohya", "ss_network_args": '{"rs_lora": "True"}'})
    check(theirs, w + (trained - w) / 2, ours, trained)


# --- beside layers ----------------------------------------------------------------------------------------------------
@pytest.fixture
def beside(bypass_layers, tmp_path):
    """(weight, tensors, strength, x, bias, convolution's facts) -> what nn::Bypass makes of the layer x."""
    def run(weight, tensors, strength, x, bias=None, **facts):
        base = {"x.weight": container.f32(weight), **({} if bias is None else {"x.bias": container.f32(bias)})}
        model = container.write(tmp_path / "model.safetensors", base)
        lora = container.write(tmp_path / "beside.safetensors", {"x" + k: container.f32(v) for k, v in tensors.items()})
        (out, _), left_out = bypass.run(bypass_layers, tmp_path, model, {"x": {**facts_of(weight, bias), **facts}},
                                        {"x": np.asarray(x)}, [[f"{lora}:{strength}"]])
        assert not left_out
        return out["x"].astype(np.float64)
    return run


def image(*shape):
    return normal(90, *shape)


def forward(torch, weight, x, bias=None, **options):
    with torch.no_grad():
        return adapters.torch_layer(torch, weight, bias, **options)(torch.tensor(x, dtype=torch.float32)).double().numpy()


@pytest.mark.parametrize("what, options, facts", [
    ("groups", {"groups": 2}, {"groups": 2}),
    ("padding mode", {"padding": 1, "padding_mode": "reflect"}, {"padding": [1, 1], "padding_mode": "reflect"})])
def test_comfyui_knows_no_groups_and_padding_modes(beside, comfy, torch, what, options, facts):
    w = normal(0, O, I // 2 if what == "groups" else I, 3, 3)
    t = {".lora_up.weight": normal(1, O, R, 1, 1), ".lora_down.weight": normal(2, R, w.shape[1], 3, 3)}
    merged = w + np.einsum("orab,rixy->oixy", t[".lora_up.weight"], t[".lora_down.weight"])
    x = image(2, I, 7, 6)
    right = forward(torch, merged, x, **options)
    why, theirs = bypass.hooked(torch, comfy, w, t, 1.0, torch.tensor(x, dtype=torch.float32), **options)
    assert why.startswith("raises") or adapters.error(theirs, right) > FAR
    assert adapters.error(beside(w, t, 1.0, x, **facts), right) < NEAR


def test_comfyui_drops_the_dilation_of_glora(beside, comfy, torch):
    w, x = normal(0, O, I, 3, 3), image(2, I, 9, 8)
    t = {".a1.weight": normal(1, I, R), ".a2.weight": normal(2, R, I), ".b1.weight": normal(3, O, R, 1, 1),
         ".b2.weight": normal(4, R, I, 3, 3)}
    convolutional = {**t, ".a1.weight": t[".a1.weight"][..., None, None], ".a2.weight": t[".a2.weight"][..., None, None]}
    merged = (w + np.einsum("oixy,ij->ojxy", w, t[".a1.weight"] @ t[".a2.weight"]) +
              np.einsum("or,rixy->oixy", t[".b1.weight"][..., 0, 0], t[".b2.weight"]))
    right = forward(torch, merged, x, dilation=2, padding=2)
    why, theirs = bypass.hooked(torch, comfy, w, convolutional, 1.0, torch.tensor(x, dtype=torch.float32), dilation=2, padding=2)
    assert why.startswith("raises") or adapters.error(theirs, right) > FAR
    assert adapters.error(beside(w, convolutional, 1.0, x, dilation=[2, 2], padding=[2, 2]), right) < NEAR


def test_comfyui_cannot_put_kernels_beside_linear_layers(beside, comfy, torch):
    w, x = normal(0, O, I), image(3, I)
    t = {".lora_up.weight": normal(1, O, R, 1, 1), ".lora_down.weight": normal(2, R, I, 1, 1)}
    assert bypass.hooked(torch, comfy, w, t, 1.0, torch.tensor(x, dtype=torch.float32))[0].startswith("raises")
    merged = w + t[".lora_up.weight"][..., 0, 0] @ t[".lora_down.weight"][..., 0, 0]
    assert adapters.error(beside(w, t, 1.0, x), forward(torch, merged, x)) < NEAR


@pytest.mark.parametrize("algorithm, blocks", [("oft", (2, 4, 4)), ("boft", (2, 2, 4, 4))])
def test_comfyui_rotates_the_bias(beside, comfy, torch, algorithm, blocks):
    """OFT: of one token alone, with more its view() throws (test_bypass)."""
    w, b, x = normal(0, O, I), normal(5, O), image(1, I)
    t = {".oft_blocks": normal(1, *blocks)}
    product = x @ w.T
    plain = beside(w, t, 1.0, x)
    why, theirs = bypass.hooked(torch, comfy, w, t, 1.0, torch.tensor(x, dtype=torch.float32), b)
    if algorithm == "oft":
        turned = np.einsum("knm,xkn->xkm", cayley(t[".oft_blocks"]), (product + b).reshape(1, 2, 4)).reshape(1, O)
        assert not why and adapters.error(theirs, turned) < NEAR
    ours = beside(w, t, 1.0, x, b)
    assert not why and adapters.error(ours, plain + b) < NEAR and adapters.error(theirs, ours) > FAR


@pytest.mark.parametrize("blocks", [(2, 4, 4), (2, 2, 4, 4)], ids=["oft", "boft"])
def test_comfyui_cannot_rotate_in_half_precision(bypass_layers, comfy, torch, tmp_path, blocks):
    w, x, t = normal(0, O, I), image(1, I), {".oft_blocks": normal(1, *blocks)}
    patch = adapters.comfy_patch(comfy, torch, t)
    layer = adapters.torch_layer(torch, w).to(torch.bfloat16)
    hook = importlib_bypass().BypassForwardHook(layer, patch, 1.0)
    hook.inject()
    with pytest.raises(RuntimeError):
        layer(torch.tensor(x).to(torch.bfloat16))
    model = container.write(tmp_path / "model.safetensors", {"x.weight": container.f32(w)})
    lora = container.write(tmp_path / "lora.safetensors", {"x" + k: container.f32(v) for k, v in t.items()})
    outs = [bypass.run(bypass_layers, tmp_path, model, {"x": facts_of(w, None)}, {"x": x}, [[str(lora)]], dtype)[0][0]["x"]
            for dtype in ("fp32", "bf16")]
    assert 0 < adapters.error(outs[1], outs[0]) < 0.02


def importlib_bypass():
    import comfy.weight_adapter.bypass as module
    return module


def test_comfyui_cannot_take_hooks_off_in_the_order_of_their_making(comfy, torch):
    """Ours: Bypass.DetachesInAnyOrder."""
    module = importlib_bypass()
    layer = adapters.torch_layer(torch, normal(0, O, I))
    hooks = [module.BypassForwardHook(layer, adapters.comfy_patch(comfy, torch, lora_tensors(seed)), 1.0) for seed in (0, 20)]
    for step in ("inject", "eject"):
        for hook in hooks:
            getattr(hook, step)()
    with pytest.raises(TypeError, match="NoneType"):
        layer(torch.ones(1, I))


def test_comfyui_drops_slices_of_fused_layers(bypass_layers, comfy, torch, tmp_path, caplog):
    """Flux by diffusers' names: nothing of to_q, to_k, to_v is beside a layer."""
    from peerlib import models
    path = models.checkpoint(models.flux(comfy, torch), tmp_path / "flux.safetensors")
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32}, disable_dynamic=True)
    tensors = {}
    for index, part in enumerate(("to_q", "to_k", "to_v")):
        stem = f"transformer.transformer_blocks.0.attn.{part}"
        tensors[stem + ".lora_B.weight"] = container.f32(normal(index, 256, R))
        tensors[stem + ".lora_A.weight"] = container.f32(normal(10 + index, R, 256))
    lora = container.write(tmp_path / "lora.safetensors", tensors)
    with caplog.at_level(logging.WARNING):
        bypassed, _ = comfy.sd.load_bypass_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(lora)), 1.0, 0.0)
    assert caplog.text.count("Adapter key not in model state_dict") == 3 and not bypassed.injections

    name = "double_blocks.0.img_attn.qkv"
    shapes = {name: (768, 256), "single_blocks.0.linear1": (1792, 256), "img_in": (256, 64)}
    model = container.write(tmp_path / "model.safetensors",
                            {f"{layer}.weight": container.f32(normal(i, *shape)) for i, (layer, shape) in enumerate(shapes.items())})
    x = normal(50, 3, 256)
    (out, plain), left_out = bypass.run(
        bypass_layers, tmp_path, model, {layer: {"shape": list(shape)} for layer, shape in shapes.items()},
        {layer: x[:, :shape[1]] for layer, shape in shapes.items()}, [[str(lora)]])
    assert not left_out
    expected = np.concatenate([x @ (normal(i, 256, R) @ normal(10 + i, R, 256)).T for i in range(3)], axis=1)
    assert adapters.error(out[name] - plain[name], expected) < 1e-4
    assert np.array_equal(out["img_in"], plain["img_in"])


def test_comfyui_ignores_reshape_weight_beside_layers(comfy, torch, merge):
    """Ours leaves such an adapter out, and says so (Bypass.SaysWhatItCannotDo); merging takes it."""
    w = normal(0, O, I)
    t = {**lora_tensors(inputs=I + 2), ".reshape_weight": np.array([O, I + 2.0])}
    assert bypass.hooked(torch, comfy, w, t, 1.0, torch.ones(1, I + 2))[0].startswith("raises")
    grown = np.concatenate([w, np.zeros((O, 2))], axis=1)
    assert adapters.error(merge(w, t), grown + lora_delta(t)) < NEAR


def test_lycoris_ignores_magnitudes_beside_layers(beside, lycoris, torch):
    module = lycoris_module(torch, lycoris, "linear", "LoConModule", {"weight_decompose": True, "wd_on_out": True})
    w, x = module.org_module[0].weight.double().numpy(), image(3, 16)
    trained = module(torch.tensor(x, dtype=torch.float32)).detach().double().numpy()
    theirs = module.bypass_forward(torch.tensor(x, dtype=torch.float32)).detach().double().numpy()
    tensors = {"." + name: value.detach().numpy() for name, value in module.state_dict().items()}
    assert adapters.error(theirs, trained) > FAR and adapters.error(beside(w, tensors, 1.0, x), trained) < NEAR


def test_comfyui_takes_other_layers_for_linear_ones(comfy, torch):
    """Ours leaves these out, and says so: Bypass.SaysWhatItCannotDo."""
    module = importlib_bypass()
    assert module.get_module_type_info(torch.nn.ConvTranspose2d(4, 4, 3))["conv_dim"] == 2
    layer = torch.nn.Embedding(I, O)
    module.BypassForwardHook(layer, adapters.comfy_patch(comfy, torch, lora_tensors(outputs=O)), 1.0).inject()
    with pytest.raises(RuntimeError):
        layer(torch.tensor([1, 2]))


def test_comfyui_needs_inputs_without_a_name(comfy, torch):
    """Ours is called where the product is computed, however the layer is."""
    layer = adapters.torch_layer(torch, normal(0, O, I))
    importlib_bypass().BypassForwardHook(layer, adapters.comfy_patch(comfy, torch, lora_tensors()), 1.0).inject()
    with pytest.raises(TypeError, match="positional argument"):
        layer(input=torch.ones(1, I))


def test_comfyui_divides_by_alpha_of_full_lokr(beside, comfy, torch):
    w, x = normal(0, O, I), image(3, I)
    t = {".lokr_w1": normal(1, 2, 3), ".lokr_w2": normal(2, 4, 2), ".alpha": np.array(0.0)}
    assert bypass.hooked(torch, comfy, w, t, 1.0, torch.tensor(x, dtype=torch.float32))[0] == "raises ZeroDivisionError"
    assert adapters.error(beside(w, t, 1.0, x), forward(torch, w + np.kron(t[".lokr_w1"], t[".lokr_w2"]), x)) < NEAR
