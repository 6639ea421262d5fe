#!/usr/bin/env python3
"""Store the tensor names, shapes and dtypes of published models as small JSON files.

The names and shapes come from ComfyUI's own model classes, built on PyTorch's meta device (no
weights are needed, no memory is used). Where ComfyUI renames tensors while it loads a file, the
published names are restored here and ComfyUI's renaming is used to check the result.

    python dump_shapes.py --comfyui PATH            write <model>.json beside this script
    python dump_shapes.py --comfyui PATH --check    compare them with the stored files, and let
                                                    ComfyUI detect and build every model from them

README.md describes the file format.
"""

import argparse
import importlib
import importlib.util
import importlib.machinery
import json
import logging
import math
import re
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Modules that ComfyUI imports at the top of a file but that nothing here calls.
UNUSED = ("torchvision", "torchaudio", "torchsde", "av", "comfy_aimdo", "kornia", "spandrel")


class StubModule(types.ModuleType):
    """A module that has every attribute: each is an empty class."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class StubFinder:
    """Supplies stubs for the modules of UNUSED that are not installed."""

    def __init__(self):
        self.roots = {n for n in UNUSED if importlib.util.find_spec(n) is None}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.roots:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return StubModule(spec.name)

    def exec_module(self, module):
        pass


def import_comfyui(path):
    sys.path.insert(0, str(path))
    sys.meta_path.append(StubFinder())
    # One fork installs packages when this module is imported.
    sys.modules["comfy.zluda"] = types.ModuleType("comfy.zluda")
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    logging.disable(logging.WARNING)
    import comfy.model_detection
    import comfy.sd  # noqa: F401


# ---------------------------------------------------------------------------------------------
# Building: every function returns {published name: (shape, dtype)} in the model's own order.

DTYPES = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32",
          "torch.int64": "I64", "torch.uint8": "U8"}


def find_class(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def torch_dtype(name):
    import torch

    return getattr(torch, {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[name])


def build(model):
    """Instantiates the ComfyUI class of `model` and returns its state dict (meta tensors)."""
    import comfy.ops

    module = find_class(model["source"])(
        dtype=torch_dtype(model["dtype"]), device="meta",
        operations=comfy.ops.disable_weight_init, **model["config"])
    return module.state_dict()


def published(model):
    tensors = model.get("build", build)(model)
    rename = model.get("rename", lambda name: name)
    out = {}
    for name, t in tensors.items():
        if not isinstance(t, tuple):
            t = (list(t.shape), DTYPES[str(t.dtype)])
        name = model.get("prefix", "") + rename(name)
        assert name not in out, f"{model['name']}: {name} twice"
        out[name] = t
    return out


def norm_scale(name):
    """Black Forest Labs' files call the RMS norm weights `scale`; ComfyUI loads them as `weight`."""
    return re.sub(r"_norm\.weight$", "_norm.scale", name)


def build_radiance(model):
    import torch

    return build({**model, "config": {**model["config"], "nerf_embedder_dtype": torch.float32}})


def chroma_names(name):
    return re.sub(r"(_norm|distilled_guidance_layer\.norms\.\d+)\.weight$", r"\1.scale", name)


def hunyuan_names(name):
    """The names of Tencent's own file: the reverse of HunyuanVideo.process_unet_state_dict."""
    for pattern, to in (
            (r"^txt_in\.t_embedder\.in_layer\.", "txt_in.t_embedder.mlp.0."),
            (r"^txt_in\.t_embedder\.out_layer\.", "txt_in.t_embedder.mlp.2."),
            (r"^txt_in\.c_embedder\.in_layer\.", "txt_in.c_embedder.linear_1."),
            (r"^txt_in\.c_embedder\.out_layer\.", "txt_in.c_embedder.linear_2."),
            (r"^(time_in|guidance_in)\.in_layer\.", r"\1.mlp.0."),
            (r"^(time_in|guidance_in)\.out_layer\.", r"\1.mlp.2."),
            (r"(_mod|\.modulation)\.lin\.", r"\1.linear."),
            (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
            (r"mlp\.0\.(weight|bias)$", r"mlp.fc1.\1"),
            (r"mlp\.2\.(weight|bias)$", r"mlp.fc2.\1"),
            (r"_attn\.norm\.query_norm\.weight$", "_attn_q_norm.weight"),
            (r"_attn\.norm\.key_norm\.weight$", "_attn_k_norm.weight"),
            (r"\.norm\.query_norm\.weight$", ".q_norm.weight"),
            (r"\.norm\.key_norm\.weight$", ".k_norm.weight")):
        if re.match(r"^(time_in|guidance_in|txt_in\.t_embedder)\.mlp", name):
            continue  # already named as published; `mlp.0` is not a block's fc1
        name = re.sub(pattern, to, name)
    return name


def build_text_encoder(model):
    """T5 and UMT5: the config is the JSON file that ComfyUI ships."""
    import comfy.ops
    import comfy.text_encoders.t5

    file = Path(comfy.text_encoders.t5.__file__).parent / model["config"]["file"]
    config = json.loads(file.read_text())
    module = comfy.text_encoders.t5.T5(config, torch_dtype(model["dtype"]), "meta",
                                       comfy.ops.disable_weight_init)
    out = {k: (list(v.shape), DTYPES[str(v.dtype)]) for k, v in module.state_dict().items()}
    if model["config"].get("spiece_model"):
        # The tokenizer rides in the file as raw bytes.
        out["spiece_model"] = ([model["config"]["spiece_model"]], "U8")
    return out


def build_sdxl(model):
    """An all-in-one checkpoint: UNet, VAE and both text encoders under their published prefixes."""
    import comfy.clip_model
    import comfy.model_detection
    import comfy.ops
    import comfy.sdxl_clip
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.supported_models import SDXL
    import torch

    dtype = torch_dtype(model["dtype"])
    ops = comfy.ops.disable_weight_init
    out = {}

    def add(prefix, tensors):
        for k, v in tensors.items():
            out[prefix + k] = (list(v.shape), DTYPES[str(v.dtype)])

    unet = find_class(model["source"])(dtype=dtype, device="meta", operations=ops,
                                       **model["config"]["unet"])
    add("model.diffusion_model.", unet.state_dict())

    with torch.device("meta"):
        vae = AutoencoderKL(embed_dim=4, ddconfig=model["config"]["vae"]).to(dtype)
    add("first_stage_model.", vae.state_dict())

    clip = {}
    for name, file in (("clip_l", "sd1_clip_config.json"), ("clip_g", "clip_config_bigg.json")):
        config = json.loads((Path(comfy.clip_model.__file__).parent / file).read_text())
        encoder = comfy.clip_model.CLIPTextModel(config, dtype, "meta", ops)
        for k, v in encoder.state_dict().items():
            clip[f"{name}.transformer.{k}"] = v
        clip[f"{name}.logit_scale"] = torch.empty((), dtype=dtype, device="meta")
    # ComfyUI's own exporter gives back the published names (open_clip's for the second encoder).
    config = {k: v for k, v in model["config"]["unet"].items() if k in SDXL.unet_config}
    saved = SDXL(config).process_clip_state_dict_for_saving(clip)
    add("", dict(sorted(saved.items())))
    return out


# ---------------------------------------------------------------------------------------------
# The models. `tensors` is the published tensor count, where known; `stacks` are regular expressions of
# the prefixes whose numbered children are the repeated blocks; `widths` are the sizes that a scaled-down copy
# shrinks (the first that divides a dimension counts, see README.md).

WAN = "comfy.ldm.wan.model.WanModel"
FLUX = "comfy.ldm.flux.model.Flux"


def wan(name, detects, dim, ffn, layers, in_dim, out_dim=16, tensors=None, model_type="t2v"):
    return {
        "name": name, "source": WAN, "detects": detects, "dtype": "BF16", "tensors": tensors,
        "config": dict(model_type=model_type, patch_size=(1, 2, 2), freq_dim=256, text_dim=4096,
                       in_dim=in_dim, dim=dim, ffn_dim=ffn, out_dim=out_dim,
                       num_heads=dim // 128, num_layers=layers, qk_norm=True,
                       cross_attn_norm=True),
        "stacks": [r"blocks\."], "widths": {"dim": dim, "ffn": ffn, "text": 4096},
    }


def ltxv(name, layers, head_dim):
    return {
        "name": name, "source": "comfy.ldm.lightricks.model.LTXVModel", "detects": "LTXV",
        "dtype": "BF16", "prefix": "model.diffusion_model.",
        "config": dict(in_channels=128, cross_attention_dim=32 * head_dim,
                       attention_head_dim=head_dim, num_attention_heads=32,
                       caption_channels=4096, num_layers=layers),
        "stacks": [r"transformer_blocks\."], "widths": {"dim": 32 * head_dim, "caption": 4096},
    }


MODELS = [
    wan("wan2.2-ti2v-5b", "WAN22_T2V", 3072, 14336, 30, 48, 48, tensors=825),
    wan("wan2.1-t2v-14b", "WAN21_T2V", 5120, 13824, 40, 16, tensors=1095),
    wan("wan2.1-i2v-14b", "WAN21_I2V", 5120, 13824, 40, 36, tensors=1303, model_type="i2v"),
    wan("wan2.2-i2v-14b", "WAN21_T2V", 5120, 13824, 40, 36, tensors=1095),
    {
        "name": "flux1-dev", "source": FLUX, "detects": "Flux", "dtype": "BF16", "tensors": 780,
        "config": dict(in_channels=16, out_channels=16, patch_size=2, vec_in_dim=768,
                       context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0, num_heads=24,
                       depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000,
                       qkv_bias=True, guidance_embed=True, txt_ids_dims=[]),
        "rename": norm_scale, "stacks": [r"double_blocks\.", r"single_blocks\."],
        "widths": {"dim": 3072, "text": 4096},
    },
    {
        "name": "flux2-dev", "source": FLUX, "detects": "Flux2", "dtype": "BF16",
        "config": dict(in_channels=128, out_channels=128, patch_size=1, vec_in_dim=None,
                       context_in_dim=15360, hidden_size=6144, mlp_ratio=3.0, num_heads=48,
                       depth=8, depth_single_blocks=48, axes_dim=[32, 32, 32, 32], theta=2000,
                       qkv_bias=False, guidance_embed=True, txt_ids_dims=[3],
                       global_modulation=True, mlp_silu_act=True, ops_bias=False,
                       default_ref_method="index", ref_index_scale=10.0),
        "rename": norm_scale, "stacks": [r"double_blocks\.", r"single_blocks\."],
        "widths": {"dim": 6144, "text": 15360},
    },
    {
        "name": "qwen-image", "source": "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        "detects": "QwenImage", "dtype": "BF16", "tensors": 1933,
        "config": dict(in_channels=64, out_channels=16, num_layers=60, attention_head_dim=128,
                       num_attention_heads=24, joint_attention_dim=3584),
        "stacks": [r"transformer_blocks\."], "widths": {"dim": 3072, "text": 3584},
    },
    {
        "name": "z-image", "source": "comfy.ldm.lumina.model.NextDiT", "detects": "ZImage",
        "dtype": "BF16", "tensors": 453,
        "config": dict(patch_size=2, in_channels=16, dim=3840, cap_feat_dim=2560, n_layers=30,
                       n_refiner_layers=2, n_heads=30, n_kv_heads=30, qk_norm=True,
                       axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0,
                       ffn_dim_multiplier=8.0 / 3.0, z_image_modulation=True, time_scale=1000.0,
                       pad_tokens_multiple=32),
        "stacks": [r"layers\.", r"noise_refiner\.", r"context_refiner\."],
        "widths": {"dim": 3840, "ffn": 10240, "text": 2560},
    },
    {
        "name": "chroma", "source": "comfy.ldm.chroma.model.Chroma", "detects": "Chroma",
        "dtype": "BF16", "tensors": 643,
        "config": dict(in_channels=64, out_channels=64, patch_size=2, context_in_dim=4096,
                       hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=19,
                       depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000, qkv_bias=True,
                       in_dim=64, out_dim=3072, hidden_dim=5120, n_layers=5, vec_in_dim=None,
                       txt_ids_dims=[]),
        "rename": chroma_names, "stacks": [r"double_blocks\.", r"single_blocks\."],
        "widths": {"dim": 3072, "text": 4096, "guidance": 5120},
    },
    {
        "name": "chroma-radiance", "source": "comfy.ldm.chroma_radiance.model.ChromaRadiance",
        "detects": "ChromaRadiance", "dtype": "BF16", "build": build_radiance,
        "config": dict(in_channels=3, out_channels=3, patch_size=16, context_in_dim=4096,
                       hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=19,
                       depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000, qkv_bias=True,
                       in_dim=64, out_dim=3072, hidden_dim=5120, n_layers=5, vec_in_dim=None,
                       txt_ids_dims=[], nerf_hidden_size=64, nerf_mlp_ratio=4, nerf_depth=4,
                       nerf_max_freqs=8, nerf_tile_size=512, nerf_final_head_type="conv",
                       use_x0=False, use_sequential_txt_ids=False),
        "rename": chroma_names,
        "stacks": [r"double_blocks\.", r"single_blocks\.", r"nerf_blocks\."],
        "widths": {"dim": 3072, "text": 4096, "guidance": 5120},
    },
    {
        "name": "krea2", "source": "comfy.ldm.krea2.model.SingleStreamDiT", "detects": "Krea2",
        "dtype": "BF16", "config": dict(features=6144, txtdim=2560, heads=48, kvheads=12, layers=28),
        "stacks": [r"blocks\.", r"txtfusion\.layerwise_blocks\.", r"txtfusion\.refiner_blocks\."],
        "widths": {"dim": 6144, "text": 2560},
    },
    {
        "name": "ideogram4", "source": "comfy.ldm.ideogram4.model.Ideogram4Transformer2DModel",
        "detects": "Ideogram4", "dtype": "BF16",
        "config": dict(in_channels=128, num_layers=34, num_attention_heads=18, attention_head_dim=256,
                       intermediate_size=12288, adaln_dim=512, llm_features_dim=53248),
        "stacks": [r"layers\."], "widths": {"dim": 4608, "text": 53248},
    },
    {
        "name": "lens", "source": "comfy.ldm.lens.model.LensTransformer2DModel", "detects": "Lens",
        "dtype": "BF16",
        "config": dict(in_channels=128, out_channels=32, num_layers=48, attention_head_dim=64,
                       num_attention_heads=24, enc_hidden_dim=2880),
        "stacks": [r"transformer_blocks\."], "widths": {"dim": 1536, "text": 2880},
    },
    {
        "name": "hunyuan-video", "source": "comfy.ldm.hunyuan_video.model.HunyuanVideo",
        "detects": "HunyuanVideo", "dtype": "BF16",
        "config": dict(in_channels=16, out_channels=16, patch_size=[1, 2, 2], vec_in_dim=768,
                       context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0, num_heads=24,
                       depth=20, depth_single_blocks=40, axes_dim=[16, 56, 56], theta=256,
                       qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False,
                       use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False),
        "rename": hunyuan_names,
        "stacks": [r"double_blocks\.", r"single_blocks\.", r"txt_in\.individual_token_refiner\.blocks\."],
        "widths": {"dim": 3072, "text": 4096},
    },
    ltxv("ltx-video-2b", 28, 64),
    ltxv("ltx-video-13b", 48, 128),
    {
        "name": "ltx-2", "source": "comfy.ldm.lightricks.av_model.LTXAVModel",
        "detects": "LTXAV", "dtype": "BF16", "prefix": "model.diffusion_model.",
        "config": dict(in_channels=128, audio_in_channels=128, cross_attention_dim=4096,
                       audio_cross_attention_dim=2048, attention_head_dim=128,
                       audio_attention_head_dim=64, num_attention_heads=32,
                       audio_num_attention_heads=32, caption_channels=3840, num_layers=48),
        "stacks": [r"transformer_blocks\.", r"audio_embeddings_connector\.transformer_1d_blocks\.",
                   r"video_embeddings_connector\.transformer_1d_blocks\."],
        "widths": {"audio": 2048, "caption": 3840},
    },
    {
        "name": "t5-xxl", "source": "comfy.text_encoders.t5.T5", "detects": "T5_XXL",
        "dtype": "F16", "tensors": 219, "build": build_text_encoder,
        "config": {"file": "t5_config_xxl.json"},
        "stacks": [r"encoder\.block\."], "widths": {"dim": 4096, "ffn": 10240},
    },
    {
        "name": "umt5-xxl", "source": "comfy.text_encoders.t5.T5", "detects": "T5_XXL",
        "dtype": "F16", "build": build_text_encoder,
        "config": {"file": "umt5_config_xxl.json", "spiece_model": 4548313},
        "stacks": [r"encoder\.block\."], "widths": {"dim": 4096, "ffn": 10240},
    },
    {
        "name": "sdxl-base", "source": "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "detects": "SDXL", "dtype": "F16", "tensors": 2515, "build": build_sdxl,
        "all_in_one": True,
        "config": {
            "unet": dict(image_size=32, in_channels=4, out_channels=4, model_channels=320,
                         num_res_blocks=[2, 2, 2], channel_mult=(1, 2, 4),
                         transformer_depth=[0, 0, 2, 2, 10, 10],
                         transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
                         transformer_depth_middle=10, context_dim=2048, num_head_channels=64,
                         num_classes="sequential", adm_in_channels=2816,
                         use_spatial_transformer=True, use_linear_in_transformer=True,
                         use_temporal_attention=False, legacy=False),
            "vae": dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3,
                        ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[],
                        dropout=0.0),
        },
        "stacks": [r"model\.diffusion_model\.[a-z_]+\.[0-9.]*transformer_blocks\.",
                   r"conditioner\.embedders\.0\.transformer\.text_model\.encoder\.layers\.",
                   r"conditioner\.embedders\.1\.model\.transformer\.resblocks\."],
        "widths": {"model": 320, "clip_l": 768, "context": 2048},
    },
]


# ---------------------------------------------------------------------------------------------
# Packing: repeated blocks are stored once.

def pack(model, tensors):
    prefix = model.get("prefix", "")
    pattern = re.compile(r"^((?:" + "|".join(model["stacks"]) + r"))(\d+)\.(.+)$")
    blocks, plain = {}, []

    def entry(name, shape, dtype):
        row = {"name": name, "shape": shape}
        if dtype != model["dtype"]:
            row["dtype"] = dtype
        return row

    for name, (shape, dtype) in tensors.items():
        assert name.startswith(prefix)
        name = name[len(prefix):]
        m = pattern.match(name)
        if m:
            stack = blocks.setdefault(m[1], {})
            stack.setdefault(int(m[2]), []).append(entry(m[3], shape, dtype))
        else:
            plain.append(entry(name, shape, dtype))

    groups = []
    for stack, by_index in blocks.items():
        kinds = []  # [(tensors, [indices])]: blocks that differ become separate groups
        for index in sorted(by_index):
            for rows, indices in kinds:
                if rows == by_index[index]:
                    indices.append(index)
                    break
            else:
                kinds.append((by_index[index], [index]))
        for rows, indices in kinds:
            group = {"prefix": stack}
            if indices == list(range(indices[0], indices[0] + len(indices))):
                if indices[0]:
                    group["first"] = indices[0]
                group["count"] = len(indices)
            else:
                group["indices"] = indices
            groups.append(group | {"tensors": rows})
    return {
        "name": model["name"], "source": model["source"], "prefix": prefix,
        "dtype": model["dtype"], "config": model["config"], "widths": model["widths"],
        "blocks": groups, "tensors": plain,
    }


def unpack(packed):
    """{name: (shape, dtype)}; the order of a file is not kept."""
    out = {}

    def add(name, row):
        name = packed["prefix"] + name
        assert name not in out, name
        out[name] = (row["shape"], row.get("dtype", packed["dtype"]))

    for group in packed["blocks"]:
        first = group.get("first", 0)
        for i in group.get("indices") or range(first, first + group["count"]):
            for row in group["tensors"]:
                add(f"{group['prefix']}{i}.{row['name']}", row)
    for row in packed["tensors"]:
        add(row["name"], row)
    return out


def to_text(packed):
    """JSON with one tensor per line, so that a change shows as one line in a diff."""
    def compact(x):
        return json.dumps(x, separators=(",", ":"))

    def rows(items, indent):
        return ",\n".join(indent + compact(r) for r in items)

    lines = ["{"]
    for key in ("name", "source", "prefix", "dtype", "config", "widths"):
        lines.append(f' "{key}": {json.dumps(packed[key])},')
    lines.append(' "blocks": [')
    groups = []
    for group in packed["blocks"]:
        head = ", ".join(f'"{k}": {json.dumps(v)}' for k, v in group.items() if k != "tensors")
        groups.append(f'  {{{head}, "tensors": [\n' + rows(group["tensors"], "   ") + "]}")
    lines.append(",\n".join(groups) + "],")
    lines.append(' "tensors": [\n' + rows(packed["tensors"], "  ") + "]")
    return "\n".join(lines) + "\n}\n"


# ---------------------------------------------------------------------------------------------
# Checking: ComfyUI itself detects the model from names and shapes and builds it.

def meta_state_dict(tensors):
    import torch

    back = {v: k.split(".")[1] for k, v in DTYPES.items()}
    return {k: torch.empty(shape, dtype=getattr(torch, back[dtype]), device="meta")
            for k, (shape, dtype) in tensors.items()}


def expect_same(what, expected, found):
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    wrong = [k for k in set(expected) & set(found) if expected[k] != found[k]]
    assert not (missing or extra or wrong), \
        f"{what}: missing {sorted(missing)[:5]}, extra {sorted(extra)[:5]}, shape {wrong[:5]}"


def check_diffusion(model, sd):
    import comfy.model_detection as detection
    import comfy.utils

    prefix = "model.diffusion_model." if any(k.startswith("model.diffusion_model.") for k in sd) else ""
    if prefix:
        assert detection.unet_prefix_from_state_dict(sd) == prefix
    config = detection.model_config_from_unet(sd, prefix)
    found = type(config).__name__ if config else None
    assert found == model["detects"], f"detected {found}, not {model['detects']}"

    # A model that ComfyUI builds from this header alone has exactly these tensors.
    config.set_inference_dtype(torch_dtype(model["dtype"]), None)
    built = config.get_model(sd, prefix, device="meta").diffusion_model.state_dict()
    unet = {k[len(prefix):]: v for k, v in sd.items() if k.startswith(prefix)}
    unet = config.process_unet_state_dict(unet)
    expect_same("diffusion model", {k: tuple(v.shape) for k, v in built.items()},
                {k: tuple(v.shape) for k, v in unet.items()})
    if not model.get("all_in_one"):
        return found

    # The all-in-one file: ComfyUI splits it, and every part is complete.
    clip = config.process_clip_state_dict(dict(sd))
    ids = "clip_l.transformer.text_model.embeddings.position_ids"
    assert str(clip.pop(ids).dtype) == "torch.int64"
    tower = [k for k in clip if k.startswith("clip_g.")]
    assert len(tower) == 32 * 16 + 4 + 2, len(tower)
    vae = [k for k in sd if k.startswith(config.vae_key_prefix[0])]
    assert len(vae) == 248, len(vae)
    return found


def check_text_encoder(model, sd):
    import comfy.sd

    found = comfy.sd.detect_te_model(sd)
    assert found is not None and found.name == model["detects"], f"detected {found}"
    return found.name


def check(model, tensors):
    if model.get("tensors"):
        assert len(tensors) == model["tensors"], \
            f"{model['name']}: {len(tensors)} tensors, published {model['tensors']}"
    sd = meta_state_dict(tensors)
    text = model.get("build") is build_text_encoder
    found = (check_text_encoder if text else check_diffusion)(model, sd)
    params = sum(math.prod(shape) for shape, _ in tensors.values())
    print(f"{model['name']:16s} {len(tensors):5d} tensors {params / 1e9:7.3f} B parameters, "
          f"detected as {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", required=True, type=Path, help="root of a ComfyUI tree")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the JSON files")
    parser.add_argument("--check", action="store_true", help="check the stored files, write nothing")
    parser.add_argument("names", nargs="*", help="models (default: all)")
    args = parser.parse_args()
    known = {m["name"]: m for m in MODELS}
    for name in args.names:
        if name not in known:
            parser.error(f"unknown model {name}; known: {', '.join(known)}")
    import_comfyui(args.comfyui.resolve())
    for name in args.names or known:
        model, file = known[name], args.out / f"{name}.json"
        tensors = published(model)
        packed = pack(model, tensors)
        text = to_text(packed)
        assert unpack(json.loads(text)) == tensors, f"{name}: packing lost something"
        if args.check:
            assert file.read_text() == text, f"{file} is out of date: run without --check"
        check(model, tensors)
        if not args.check:
            file.write_text(text)


if __name__ == "__main__":
    main()
