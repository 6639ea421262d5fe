"""Golden bytes of svdquant_w4a4: any codes, unpacked and put in order by comfy-kitchen's own functions, then

    weight = code * scale / smooth + up[:, 0] * down[:, 0] + ...     (float32, one rounding per operation)

The layout's dequantize runs an identity through the 4-bit kernel and so has roundings of its own; in float32 it comes
within 2^-20 of the largest element, which is checked here. The format is only read: a case has no source values.
"""
import numpy as np
import torch
from comfy_kitchen.backends.eager import svdquant
from comfy_kitchen.tensor import TensorCoreSVDQuantW4A4Layout
from make_golden import pack


def tiled_weight(codes):
    """[N, K/2] -> [N/128, K/64, 32, 128], the inverse of the reference's own reordering."""
    n, half = codes.shape
    tiles = codes.reshape(n // 128, 32, 4, half // 32, 32).permute(0, 3, 1, 2, 4)
    return tiles.reshape(n // 128, half // 32, 32, 128).contiguous()


def tiled_rows(columns_first):
    """[C, N] -> [N/128, C, 128]"""
    count, n = columns_first.shape
    return columns_first.reshape(count, n // 128, 128).permute(1, 0, 2).contiguous()


def effective(codes, scale, down, up, smooth):
    weight = svdquant._unpack_int4_row_major(svdquant._tile_packed_weight_to_row_major(codes)).float().numpy()
    scale = svdquant._tile_packed_scales_to_natural(scale).float().numpy()
    up = svdquant._tile_packed_lora_up_to_natural(up).float().numpy()
    down, smooth = down.float().numpy(), smooth.float().numpy()
    low_rank = np.zeros_like(weight)
    for r in range(down.shape[1]):
        low_rank += up[:, r:r + 1] * down[:, r][None, :]
    return weight * np.repeat(scale.T, 64, axis=1) / smooth[None, :] + low_rank


def cases():
    for i, (dtype, shape, rank, tiled) in enumerate([(torch.bfloat16, (20, 128), 3, ""), (torch.float16, (2, 64), 16, ""),
                                                     (torch.float32, (1, 192), 1, ""),
                                                     (torch.bfloat16, (256, 128), 2, "weight scale up"),
                                                     (torch.bfloat16, (128, 64), 2, "scale")]):
        rng = np.random.default_rng(70 + i)
        n, k = shape
        codes = torch.from_numpy(rng.integers(-128, 128, (n, k // 2)).astype(np.int8))
        scale = torch.from_numpy(np.abs(rng.normal(0, 0.01, (k // 64, n)))).to(dtype)
        down = torch.from_numpy(rng.normal(0, 0.1, (k, rank))).to(dtype)
        up = torch.from_numpy(rng.normal(0, 0.1, (n, rank))).to(dtype)
        smooth = torch.from_numpy(np.exp(rng.normal(0, 1, k))).to(dtype)
        if "weight" in tiled:
            plain, codes = codes, tiled_weight(codes)
            assert torch.equal(svdquant._tile_packed_weight_to_row_major(codes), plain)
        if "scale" in tiled:
            scale = tiled_rows(scale)
        if "up" in tiled:
            up = tiled_rows(up.T.contiguous())
        decoded = effective(codes, scale, down, up, smooth)
        params = TensorCoreSVDQuantW4A4Layout.Params(
            scale=scale.float(), orig_dtype=torch.float32, orig_shape=shape, proj_down=down.float(), proj_up=up.float(),
            smooth_factor=smooth.float())
        reference = TensorCoreSVDQuantW4A4Layout.dequantize(codes, params).numpy()
        assert np.abs(decoded - reference).max() <= 2.0 ** -20 * np.abs(decoded).max()
        every = 7 if tiled else 1  # keeps the file small, and no tile is without
        yield {"name": f"{dtype} rank {rank} {tiled and 'tiled ' + tiled}".replace("torch.", "").strip(), "options": "",
               "source": {"shape": list(shape)},
               "tensors": {"weight": pack(codes), "weight_scale": pack(scale), "weight_proj_down": pack(down),
                           "weight_proj_up": pack(up), "weight_smooth_factor": pack(smooth)},
               "every": every, "decoded": decoded.reshape(-1)[::every].tobytes().hex()}
