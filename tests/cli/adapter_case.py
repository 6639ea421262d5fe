"""A model of two layers and a LoRA of one of them."""
import random
import struct

import checkpoints
from case import CliTest
from checkpoints import f32

ROWS, COLS, RANK = 16, 32, 2


class AdapterTest(CliTest):
    def setUp(self):
        super().setUp()
        rng = random.Random(7)
        draw = lambda count: [struct.unpack("<f", struct.pack("<f", rng.gauss(0, 1)))[0] for _ in range(count)]  # noqa: E731
        self.w = draw(ROWS * COLS)
        self.up, self.down = draw(ROWS * RANK), draw(RANK * COLS)
        checkpoints.write(self.dir / "base.safetensors", {
            "blocks.0.q.weight": ("F32", [ROWS, COLS], f32(*self.w)),
            "blocks.0.k.weight": ("F32", [ROWS, COLS], f32(*self.w))})
        self.write_lora("lora.safetensors", "blocks.0.q")

    def write_lora(self, name, target):
        checkpoints.write(self.dir / name, {
            f"{target}.lora_B.weight": ("F32", [ROWS, RANK], f32(*self.up)),
            f"{target}.lora_A.weight": ("F32", [RANK, COLS], f32(*self.down))})
