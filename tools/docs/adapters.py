#!/usr/bin/env python3
"""Renders docs/adapters.md from what the matrix tests measured: adapters.py FOLDER (`make docs-adapters` does all of it).

FOLDER holds one JSON file per mode and format, an array of cells {"mode", "kind", "format", "algorithm", "figures",
"reasons"} (tests/support/matrix.h). The same tests compare the document's rows, columns and reasons with the program.
"""
import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["linear", "conv1d", "conv2d", "conv3d"]
# The order of columns; others follow by name.
FIRST = ["lora", "loha", "lokr", "oft", "boft", "glora", "dora"]

INTRODUCTION = """\
# Adapters on every format

What an adapter (LoRA and its relatives) does to a layer can be had in two ways. **Merged**, it is multiplied into the weight
and the weight is stored again: `mezzotint merge`, nothing to load at run time, but the sum is rounded to the weight's format.
In **bypass**, it is computed beside the layer and the weight stays as it is: `mezzotint::nn::Bypass` ([runtime.md](runtime.md)),
any strength at any time, nothing is rounded.

The tables have every algorithm on every format and kind of layer that this program knows. `make docs-adapters` writes them,
from tests that are part of `make test` (`tests/convert/adapter_matrix_test.cpp`, `tests/nn/adapter_matrix_test.cpp`): every
figure below is one that a test holds under its limit, on an error that a layer without the adapter, and one with another
strength, exceed. The tests fail where this page has other rows, columns or reasons than the program. A number in
parentheses is a reason, below, why a cell or a part of it has no figure; it is what the program answers.

`dora` is LoRA with a magnitude of rows or columns (where files for floats have it, of LoHa and LoKr too); other names are
those of `src/mezzotint/adapter/algorithms/`. A cell is the worst of the algorithm's forms: Tucker cores, factored sides,
bounds, rescaling, old and new layouts.
"""

MODES = {
    "merge": """\
## Merged
- **Plain dtypes** (`fp32`, `bf16`, `fp16`): the largest error of an element, in half steps of the dtype at that element (plus a
  millionth of the largest, for float32 arithmetic), against merges in float64 NumPy; LyCORIS confirms those that it gets right
  (`tests/adapter/make_golden.py`). Limit 1: correctly rounded.
- **Quantized formats**: two figures, rounding to nearest and with feedback (the default). Each is the error of the merged layer
  against decoded base + exact delta, over the error of storing that exact sum plainly in the same format (or of the base's own
  quantization, where the sum happens to be representable): 1.00 is as good as quantizing the merged float weight. Limit 1.20.
  The delta is 0.4 of the weight's length. Not shown: all of it arrives (gain within 0.05 of 1), and with nearest rounding
  every element is within the bound that the format derives for its codec.
""",
    "bypass": """\
## In bypass
Two figures: the layer's output, and gradients of its input and of every parameter of the adapter (the worst of them).
- **`float64`**: the output against the float64 layer with the merged weight, in units of 2^-53; gradients against central
  differences, in millionths of their size (limit 1).
- **Plain dtypes**: relative errors (Frobenius norm) against the float64 layer with the merged weight, in half steps of the dtype.
  Limits 6 and 32: a few roundings, and what cancels in gradients of rotations whose norm is bound.
- **Quantized formats**: relative errors against the float64 layer with decoded weight + exact delta, over the error that the
  layer has without adapters, since its kernels round inputs as the format's runtime does (at least 2^-20). 1.00 is as
  accurate as the layer alone, less where the adapter's share is exact. Limits 1.5 and 3. Convolutions are stored as the matrix
  [O, I * kernel], as `nn::load` gives it to them; formats that are only read bring the layer of their reference bytes.
""",
}


def read_cells(folder):
    cells = {}
    for path in sorted(Path(folder).glob("*.json")):
        for cell in json.loads(path.read_text()):
            cells[cell["mode"], cell["kind"], cell["format"], cell["algorithm"]] = cell
    return cells


def figures_text(figures):
    shown = ("nearest", "feedback", "output", "gradient")
    return " ".join(f"{figures[name]:.2f}" for name in shown if name in figures)


class Reasons:
    """Numbers them in the order in which they are met."""

    def __init__(self):
        self.numbers = {}

    def marks(self, reasons):
        return " ".join(f"({self.numbers.setdefault(reason, len(self.numbers) + 1)})" for reason in sorted(reasons))


def order_of_formats(names, plain):
    """float64 first, then plain dtypes, then the rest by name."""
    return sorted(names, key=lambda name: (name != "float64", name not in plain, name))


def tables(cells, mode, reasons):
    algorithms = sorted({key[3] for key in cells}, key=lambda name: (FIRST.index(name) if name in FIRST else 99, name))
    formats = {key[2] for key in cells if key[0] == mode}
    plain = {key[2] for key, cell in cells.items() if key[0] == "merge" and "feedback" not in cell["figures"] and cell["figures"]}
    for kind in KINDS:
        yield f"### `{mode}` `{kind}`"
        yield "| format | " + " | ".join(f"`{name}`" for name in algorithms) + " |"
        yield "|---" * (len(algorithms) + 1) + "|"
        rows = {}
        for name in order_of_formats(formats, plain):
            row = []
            for algorithm in algorithms:
                cell = cells[mode, kind, name, algorithm]
                row.append(" ".join(filter(None, (figures_text(cell["figures"]), reasons.marks(cell["reasons"])))))
            # Formats of which there is the same to say share a row.
            measured = any(cells[mode, kind, name, algorithm]["figures"] for algorithm in algorithms)
            rows.setdefault(name if measured else tuple(row), (row, []))[1].append(name)
        for row, names in rows.values():
            yield "| " + ", ".join(f"`{name}`" for name in names) + " | " + " | ".join(row) + " |"
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder")
    parser.add_argument("--out", default=ROOT / "docs/adapters.md", type=Path)
    arguments = parser.parse_args()
    cells = read_cells(arguments.folder)
    missing = [mode for mode in MODES if not any(key[0] == mode for key in cells)]
    if missing:
        parser.error(f"{arguments.folder} has no cells of: {', '.join(missing)}")
    reasons = Reasons()
    lines = [INTRODUCTION]
    for mode, text in MODES.items():
        lines += [text, *tables(cells, mode, reasons)]
    lines += ["## Reasons", *(f"- ({number}) {reason}" for reason, number in reasons.numbers.items())]
    arguments.out.write_text("\n".join(lines) + "\n")


main()
