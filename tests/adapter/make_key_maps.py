#!/usr/bin/env python3
"""Writes key_maps/FAMILY.json: what ComfyUI calls the layers of small models of every family.

    make_key_maps.py COMFYUI      the folder of a ComfyUI checkout

The functions that build its key maps are taken out of comfy/utils.py and comfy/lora.py and run on a fake model; nothing else
of ComfyUI is imported. A file is

    tensors   name in the checkpoint -> shape
    keys      name in an adapter -> [layer] or [layer, first row, rows, halves swapped]

Left out are its names for layers that its own tables make up but the model does not have.
"""
import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace

COMFY = Path(sys.argv[1]) / "comfy"
OUT = Path(__file__).resolve().parent / "key_maps"
H = 128

FAMILIES = ("SD3 AuraFlow PixArt HunyuanDiT Flux GenmoMochi HunyuanVideo HiDream ACEStep Omnigen2 QwenImage Krea2 Lumina2 "
            "Kandinsky5 ACEStep15 ErnieImage LTXV LTXAV StableCascade_C").split()


def functions(path, wanted):
    """Source of top-level functions and constants, as a module of its own."""
    tree = ast.parse(path.read_text())
    keep = [node for node in tree.body if
            (isinstance(node, ast.FunctionDef) and node.name in wanted) or
            (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper())]
    keep = [node for node in keep if isinstance(node, ast.FunctionDef) or "_MAP" in node.targets[0].id or
            node.targets[0].id == "TRANSFORMER_BLOCKS"]
    return compile(ast.Module(keep, []), str(path), "exec")


utils = {}
exec(functions(COMFY / "utils.py", {"unet_to_diffusers", "mmdit_to_diffusers", "pixart_to_diffusers", "auraflow_to_diffusers",
                                    "flux_to_diffusers", "z_image_to_diffusers", "krea2_to_diffusers",
                                    "swap_scale_shift"}), utils)
model_base = SimpleNamespace(**{name: type(name, (), {}) for name in FAMILIES})
lora = {"comfy": SimpleNamespace(utils=SimpleNamespace(**utils), model_base=model_base)}
exec(functions(COMFY / "lora.py", {"model_lora_keys_unet", "model_lora_keys_clip"}), lora)


def fake(family, names, config):
    model = getattr(model_base, family, type("Other", (), {}))()
    model.state_dict = lambda: dict.fromkeys(names)
    model.model_config = SimpleNamespace(unet_config=config)
    return model


def target_of(value):
    """(layer, first row, rows, swapped) of a key map's value."""
    key, offset, swapped = (value, None, False) if isinstance(value, str) else (value[0], value[1], len(value) > 2)
    return key, offset, swapped


def shapes_of(table, extra=()):
    """Tensors that a table of names speaks of, with as many rows as its slices need."""
    shapes = {}
    for value in list(table.values()) + list(extra):
        key, offset, swapped = target_of(value)
        rows = offset[1] + offset[2] if offset else 2 * H if swapped else H
        if key.endswith((".weight", ".bias")):
            rows = max(rows, shapes.get(key, [0])[0])
            shapes[key] = [rows, H] if key.endswith(".weight") else [rows]
    return shapes


def write(name, shapes, key_map, model_key=lambda key: key):
    keys = {}
    for stem, value in key_map.items():
        key, offset, swapped = target_of(value)
        if key not in shapes:
            continue
        layer = model_key(key.removesuffix(".weight"))
        keys[stem] = [layer, offset[1] if offset else 0, offset[2] if offset else 0, swapped] if offset or swapped else [layer]
    assert keys, name
    text = {"tensors": {model_key(key): shape for key, shape in shapes.items()}, "keys": keys}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(text, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    print(name, len(shapes), "tensors,", len(keys), "names")


def diffusion(name, family, config, table=None, extra=()):
    shapes = shapes_of(table, extra) if table is not None else {key: [H, H] for key in extra}
    shapes = {f"diffusion_model.{key}" if not key.startswith("diffusion_model.") else key: s for key, s in shapes.items()}
    key_map = lora["model_lora_keys_unet"](fake(family, shapes, config), {})
    write(name, shapes, key_map, lambda key: "model." + key)


diffusion("sd3", "SD3", {"depth": 2}, utils["mmdit_to_diffusers"]({"depth": 2}))
diffusion("auraflow", "AuraFlow", {"n_double_layers": 1, "n_layers": 2},
          utils["auraflow_to_diffusers"]({"n_double_layers": 1, "n_layers": 2}))
diffusion("pixart", "PixArt", {"depth": 1, "hidden_size": H}, utils["pixart_to_diffusers"]({"depth": 1, "hidden_size": H}))
flux = {"depth": 1, "depth_single_blocks": 2, "hidden_size": H}
diffusion("flux", "Flux", flux, utils["flux_to_diffusers"](flux))
krea = {"layers": 1}
diffusion("krea2", "Krea2", krea, utils["krea2_to_diffusers"](krea))
lumina = {"n_layers": 1, "dim": H}
diffusion("lumina2", "Lumina2", lumina, utils["z_image_to_diffusers"](lumina))
unet = {"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_output": [0, 1, 0, 1],
        "transformer_depth_middle": 1}
table = utils["unet_to_diffusers"](unet)
# Its table invents a downsampler and an upsampler of the last block.
table = {theirs: ours for theirs, ours in table.items()
         if not theirs.startswith(("down_blocks.1.downsamplers", "up_blocks.1.upsamplers"))}
diffusion("unet", "", unet, table)

blocks = ["double_blocks.0.img_mod.lin", "double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.proj", "double_blocks.0.txt_mlp.0",
          "double_blocks.0.img_mlp.2", "single_blocks.0.linear1", "single_blocks.0.linear2", "single_blocks.0.modulation.lin",
          "txt_in.individual_token_refiner.blocks.0.mlp.0", "txt_in.individual_token_refiner.blocks.0.self_attn.qkv",
          "final_layer.linear"]
diffusion("hunyuan_video", "HunyuanVideo", {}, extra=[block + ".weight" for block in blocks])
plain = ["transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_out.0.weight", "img_in.weight", "proj_out.weight",
         "transformer_blocks.0.scale_shift_table"]
for name, family in {"hunyuan_dit": "HunyuanDiT", "mochi": "GenmoMochi", "hidream": "HiDream", "ace_step": "ACEStep",
                     "omnigen2": "Omnigen2", "qwen_image": "QwenImage", "kandinsky5": "Kandinsky5", "ernie": "ErnieImage",
                     "ltxv": "LTXV", "cascade": "StableCascade_C"}.items():
    diffusion(name, family, {}, extra=plain)
diffusion("ace_step15", "ACEStep15", {}, extra=["decoder.layers.0.self_attn.q_proj.weight", "decoder.proj_in.weight",
                                                "encoder.lyric_encoder.layers.0.self_attn.q_proj.weight"])


# --- text encoders ----------------------------------------------------------------------------------------------------
def encoders(name, *which):
    keys = []
    for encoder in which:
        if encoder == "t5xxl":
            keys += [f"t5xxl.transformer.encoder.block.0.layer.{leaf}.weight" for leaf in ("0.SelfAttention.q", "1.DenseReluDense.wo")]
        elif encoder == "qwen":
            keys += [f"qwen.transformer.model.layers.0.{leaf}.weight" for leaf in ("self_attn.q_proj", "mlp.up_proj")]
        else:
            keys += [f"{encoder}.transformer.text_model.encoder.layers.1.{leaf}.weight" for leaf in lora["LORA_CLIP_MAP"]]
            keys += [f"{encoder}.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
                     f"{encoder}.transformer.text_projection.weight"]
    shapes = {key: [H, H] for key in keys}
    write(name, shapes, lora["model_lora_keys_clip"](fake("", keys, {}), {}), lambda key: "text_encoders." + key)


encoders("encoders_l", "clip_l")
encoders("encoders_h", "clip_h")
encoders("encoders_g", "clip_g")
encoders("encoders_l_g", "clip_l", "clip_g")
encoders("encoders_l_t5", "clip_l", "t5xxl")
encoders("encoders_l_g_t5", "clip_l", "clip_g", "t5xxl")
encoders("encoders_qwen", "qwen")
