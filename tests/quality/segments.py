"""What it costs to cut the Hessian of a wide layer into segments: segments.py [--wide]

LDLQ by the plain torch of reference.py, whose codes are the program's (test_codes.py): whole, and in segments of columns
each with a Hessian of its own, as effort 2 does from 8192 columns on. For the layer's whole objective, and for the error
of its output on held-out inputs, both over those of plain rounding. --wide: 14336 inputs, a quarter of an hour.
"""
import sys

import torch
from reference import (by_second_moment, cast_fp8, cast_int8, gptq, hessian, inputs, objective, output_error,
                       proxy_hessian, weights)

CASTS = {"float8_e4m3fn": (cast_fp8, lambda w: (w.abs().max() / 448).expand_as(w)),
         "int8_row": (cast_int8, lambda w: (w.abs().amax(1, keepdim=True) / 127).expand_as(w))}


def segmented(w, h, step, cast, width, by_data):
    """gptq() of each segment of columns on its own."""
    parts = []
    for first in range(0, w.shape[1], width):
        columns = slice(first, first + width)
        own = h[columns, columns].contiguous()
        parts.append(gptq(w[:, columns], own, step[:, columns], cast, by_second_moment(own) if by_data else None))
    return torch.cat(parts, 1)


def main():
    torch.set_num_threads(1)
    wide = "--wide" in sys.argv[1:]
    cols, widths, rows = (14336, (14336, 7168, 3584), 3072) if wide else (3072, (3072, 1536, 768), 3072)
    shown = 512  # rows that are rounded; the Hessian is of all of them
    w = weights("lowrank", rows, cols)
    x, held_out = inputs(cols)
    held_out = held_out[:512]
    print("| layer | format | H | segments of | objective | held-out output |\n|---|---|---|---|---|---|", flush=True)
    for by_data in (False, True):
        h = hessian(x, 0.05 if len(x) < 2 * cols else 0.01) if by_data else proxy_hessian(w)
        for target, (cast, step_of) in CASTS.items():
            if wide and target != "float8_e4m3fn":
                continue
            part, step = w[:shown], step_of(w)[:shown]
            plain = cast(part / step) * step
            below, beside = objective(part, plain, h), output_error(held_out, part, plain)
            for width in widths:
                q = segmented(part, h, step, cast, width, by_data)
                print(f"| {rows} x {cols} | {target} | {'data' if by_data else 'weights'} | "
                      f"{'whole' if width == cols else width} | {objective(part, q, h) / below:.4f} | "
                      f"{output_error(held_out, part, q) / beside:.4f} |", flush=True)


if __name__ == "__main__":
    main()
