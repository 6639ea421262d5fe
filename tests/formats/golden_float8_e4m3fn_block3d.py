import fp8_block_cases


def cases():
    return fp8_block_cases.cases(23, [("block_size=8", [(3, 16)], 1, 8), ("block_size=5", [(1, 5)], 1, 5)],
                                 lambda s: (*s.shape, 1))
