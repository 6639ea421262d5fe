#!/usr/bin/env python3
"""Writes the hostile safetensors files beside this script (or into the folder given).

A file's name says what a reader has to answer: NAME.VARIANT.safetensors must be refused with the error NAME,
ok.VARIANT.safetensors must be read. Tensors of the ok files hold the bytes 0, 1, 2, ... counted from the start of the
data buffer, so that a test can check what it reads without knowing the file.
"""
import json
import pathlib
import struct
import sys

OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent


def pack(header, data=b""):
    """A file with this header (text, bytes or an object) and this data."""
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def count(n):
    return bytes(i % 256 for i in range(n))


GOOD = '"dtype":"F32","shape":[2],"data_offsets":[0,8]'
FILES = {
    "empty-file.nothing": b"",
    "file-too-short.one": b"\x10",
    "file-too-short.seven": b"\x10\0\0\0\0\0\0",
    "header-length-zero.only": bytes(8),
    "header-length-zero.more": bytes(64),
    "header-too-large.by-one": struct.pack("<Q", 100_000_001) + b"{}",
    "header-too-large.all-ones": b"\xff" * 16,
    "header-too-large.sign-bit": struct.pack("<Q", 1 << 63) + b"{}",
    "header-past-end.by-one": struct.pack("<Q", 3) + b"{}",
    "header-past-end.at-limit": struct.pack("<Q", 100_000_000) + b"{}",
    "header-past-end.eight-bytes": struct.pack("<Q", 2),
    "header-not-utf8.name": pack(b'{"\xff":{' + GOOD.encode() + b"}}", count(8)),
    "header-not-utf8.overlong": pack(b'{"\xc0\xaf":{' + GOOD.encode() + b"}}", count(8)),
    "header-not-utf8.surrogate": pack(b'{"\xed\xa0\x80":{' + GOOD.encode() + b"}}", count(8)),
    "header-not-utf8.cut": pack(b'{"a":{' + GOOD.encode() + b"}}\xe2\x82", count(8)),
    "header-not-json.unclosed": pack('{"a":{' + GOOD + "}", count(8)),
    "header-not-json.two-values": pack('{"a":{' + GOOD + "}}{}", count(8)),
    "header-not-json.trailing-comma": pack('{"a":{' + GOOD + "},}", count(8)),
    "header-not-json.zero-padded": pack('{"a":{' + GOOD + "}}\0\0\0", count(8)),
    "header-not-json.zero-hides-rest": pack('{"a":{' + GOOD + "}}\0garbage", count(8)),
    "header-not-json.byte-order-mark": pack('\ufeff{"a":{' + GOOD + "}}", count(8)),
    "header-not-json.comment": pack('{"a":{' + GOOD + "}/* x */}", count(8)),
    "header-not-json.nan": pack('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', count(8)),
    "header-not-json.lone-surrogate": pack('{"\\ud800":{' + GOOD + "}}", count(8)),
    "header-not-json.raw-newline-in-name": pack('{"a\n":{' + GOOD + "}}", count(8)),
    "header-not-json.blank": pack(" " * 16),
    "header-not-json.huge-exponent": pack('{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', count(8)),
    "header-too-deep.lists": pack('{"a":{"x":' + "[" * 5000 + "]" * 5000 + "," + GOOD + "}}", count(8)),
    "header-too-deep.objects": pack('{"a":{"x":' + '{"x":' * 300 + "0" + "}" * 300 + "," + GOOD + "}}", count(8)),
    "header-not-object.list": pack("[]"),
    "header-not-object.string": pack('"safetensors"'),
    "header-not-object.number": pack("1"),
    "header-not-object.null": pack("null"),
    "entry-not-object.number": pack({"a": 1}),
    "entry-not-object.list": pack({"a": [1, 2]}),
    "entry-not-object.null": pack({"a": None}),
    "metadata-not-object.list": pack({"__metadata__": ["a"]}),
    "metadata-not-object.string": pack({"__metadata__": "a"}),
    "metadata-not-string.number": pack({"__metadata__": {"a": 1}}),
    "metadata-not-string.object": pack({"__metadata__": {"a": {"b": "c"}}}),
    "metadata-not-string.null": pack({"__metadata__": {"a": None}}),
    "metadata-not-string.list": pack({"__metadata__": {"a": []}}),
    "duplicate-metadata.twice": pack('{"__metadata__":{},"__metadata__":{}}'),
    "duplicate-metadata.null-first": pack('{"__metadata__":null,"__metadata__":{}}'),
    "duplicate-tensor.same": pack('{"a":{' + GOOD + '},"a":{' + GOOD + "}}", count(8)),
    "duplicate-tensor.escaped": pack(
        '{"a":{' + GOOD + '},"\\u0061":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}', count(16)),
    "duplicate-field.dtype": pack('{"a":{"dtype":"F32",' + GOOD + "}}", count(8)),
    "duplicate-field.shape": pack('{"a":{"shape":[2],' + GOOD + "}}", count(8)),
    "duplicate-field.offsets": pack('{"a":{"data_offsets":[0,8],' + GOOD + "}}", count(8)),
    "dtype-missing.plain": pack({"a": {"shape": [2], "data_offsets": [0, 8]}}, count(8)),
    "dtype-missing.empty-entry": pack({"a": {}}),
    "bad-dtype.number": pack({"a": entry(dtype=32)}, count(8)),
    "bad-dtype.null": pack({"a": entry(dtype=None)}, count(8)),
    "bad-dtype.list": pack({"a": entry(dtype=["F32"])}, count(8)),
    "bad-dtype.object": pack({"a": entry(dtype={})}, count(8)),
    "unknown-dtype.lower-case": pack({"a": entry(dtype="f32")}, count(8)),
    "unknown-dtype.torch": pack({"a": entry(dtype="torch.float32")}, count(8)),
    "unknown-dtype.empty": pack({"a": entry(dtype="")}, count(8)),
    "unknown-dtype.escape-codes": pack({"a": entry(dtype="\x1b[2JF32")}, count(8)),
    "shape-missing.plain": pack({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, count(8)),
    "bad-shape.number": pack({"a": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}}, count(8)),
    "bad-shape.string": pack({"a": entry(shape=["2"])}, count(8)),
    "bad-shape.nested": pack({"a": entry(shape=[[2]])}, count(8)),
    "bad-shape.fraction": pack({"a": entry(shape=[2.0])}, count(8)),
    "bad-shape.exponent": pack('{"a":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}', count(8)),
    "bad-shape.boolean": pack({"a": entry(shape=[True])}, count(8)),
    "bad-shape.object": pack({"a": {"dtype": "F32", "shape": {}, "data_offsets": [0, 8]}}, count(8)),
    "negative-shape.minus-one": pack({"a": entry(shape=[-1])}, count(8)),
    "negative-shape.two-minus": pack({"a": entry(shape=[-1, -2])}, count(8)),
    "negative-shape.huge": pack({"a": entry(shape=[-(1 << 70)])}, count(8)),
    "shape-too-large.2to63": pack({"a": entry(shape=[1 << 63])}, count(8)),
    "shape-too-large.2to64": pack({"a": entry(shape=[1 << 64])}, count(8)),
    "rank-too-large.65": pack({"a": entry(shape=[1] * 64 + [2])}, count(8)),
    "rank-too-large.many": pack({"a": entry(shape=[1] * 20000)}, count(4)),
    "element-overflow.product-wraps-to-two": pack({"a": entry(shape=[(1 << 63) - 1, (1 << 63) - 1, 2])}, count(8)),
    "element-overflow.product-2to64": pack({"a": entry(shape=[1 << 32, 1 << 32], end=0)}),
    "element-overflow.bytes-wrap-to-zero": pack({"a": entry(shape=[1 << 62], end=0)}),
    "element-overflow.before-a-zero": pack({"a": entry(shape=[1 << 62, 1 << 62, 0], end=0)}),
    "partial-byte.f4": pack({"a": entry(dtype="F4", shape=[3], end=2)}, count(2)),
    "partial-byte.f6": pack({"a": entry(dtype="F6_E3M2", shape=[2], end=2)}, count(2)),
    "offsets-missing.plain": pack({"a": {"dtype": "F32", "shape": [2]}}, count(8)),
    "bad-offsets.number": pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": 0}}, count(8)),
    "bad-offsets.one": pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, count(8)),
    "bad-offsets.none": pack({"a": {"dtype": "F32", "shape": [0], "data_offsets": []}}),
    "bad-offsets.three": pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, count(8)),
    "bad-offsets.negative": pack({"a": entry(begin=-8, end=0)}, count(8)),
    "bad-offsets.fraction": pack({"a": entry(end=8.5)}, count(8)),
    "bad-offsets.string": pack({"a": entry(end="8")}, count(8)),
    "bad-offsets.2to63": pack({"a": entry(begin=(1 << 63) - 8, end=1 << 63)}, count(8)),
    "bad-offsets.2to64": pack({"a": entry(end=1 << 64)}, count(8)),
    "bad-offsets.object": pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": {}}}, count(8)),
    "offsets-reversed.plain": pack({"a": entry(begin=8, end=0)}, count(8)),
    "size-mismatch.longer": pack({"a": entry(end=12)}, count(12)),
    "size-mismatch.shorter": pack({"a": entry(end=4)}, count(4)),
    "size-mismatch.empty-shape": pack({"a": entry(shape=[0, 2])}, count(8)),
    "size-mismatch.rank-zero": pack({"a": entry(shape=[])}, count(8)),
    "size-mismatch.f4-counted-as-bytes": pack({"a": entry(dtype="F4", shape=[8])}, count(8)),
    "tensors-overlap.by-one": pack({"a": entry(), "b": entry(dtype="U8", shape=[8], begin=7, end=15)}, count(15)),
    "tensors-overlap.shared": pack({"a": entry(), "b": entry()}, count(8)),
    "tensors-overlap.inside": pack(
        {"a": entry(shape=[4], end=16), "b": entry(dtype="U8", shape=[4], begin=4, end=8)}, count(16)),
    "tensors-overlap.empty-inside": pack({"a": entry(), "b": entry(shape=[0], begin=4, end=4)}, count(8)),
    "data-gap.first": pack({"a": entry(begin=8, end=16)}, count(16)),
    "data-gap.middle": pack({"a": entry(), "b": entry(begin=9, end=17)}, count(17)),
    "data-gap.empty-beyond": pack({"a": entry(), "b": entry(shape=[0], begin=99, end=99)}, count(8)),
    "data-gap.far": pack({"a": entry(begin=(1 << 63) - 9, end=(1 << 63) - 1)}, count(8)),
    "truncated-file.by-one": pack({"a": entry()}, count(7)),
    "truncated-file.no-data": pack({"a": entry()}),
    "truncated-file.second-missing": pack({"a": entry(), "b": entry(begin=8, end=16)}, count(8)),
    "truncated-file.exabytes": pack({"a": entry(dtype="U8", shape=[1 << 58], end=1 << 58)}, count(8)),
    "trailing-bytes.by-one": pack({"a": entry()}, count(9)),
    "trailing-bytes.no-tensors": pack({}, count(1)),
    # Files that are something else.
    "git-lfs-pointer.plain": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 10\n",
    "html-page.doctype": b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n",
    "html-page.plain": b"<HTML><body>404 Not Found</body></HTML>",
    "html-page.xml-error": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "gguf-file.v3": b"GGUF" + struct.pack("<IQQ", 3, 123, 7) + bytes(16),
    "pytorch-file.zip": b"PK\x03\x04\x00\x00\x08\x08" + bytes(22) + b"archive/data.pkl",
    "pytorch-file.zip-whose-length-could-be-one": b"PK\x03\x04" + bytes(26) + b"archive/data.pkl",
    "pytorch-file.pickle": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "archive-file.gzip": b"\x1f\x8b\x08\x00" + bytes(32),
    "json-file.index": b'{"metadata": {"total_size": 8}, "weight_map": {"a": "b.safetensors"}}',
    # Unusual, but right.
    "ok.no-tensors": pack({}),
    "ok.only-metadata": pack({"__metadata__": {"format": "pt"}}),
    "ok.metadata-null": pack({"__metadata__": None, "a": entry()}, count(8)),
    "ok.metadata-key-twice": pack('{"__metadata__":{"k":"old","k":"new"}}'),
    "ok.unpadded": pack('{"a":{' + GOOD + "} }", count(8)),
    "ok.leading-newline": pack('\n \t\r\n{"a":{' + GOOD + "}}\n\n", count(8)),
    "ok.unknown-fields": pack(
        '{"a":{"note":{"x":[1,{"dtype":3}]},"y":[[]],"z":null,"w":-1.5e3,' + GOOD + ',"data":"x"}}', count(8)),
    "ok.deep-field": pack('{"a":{"x":' + "[" * 100 + "]" * 100 + "," + GOOD + "}}", count(8)),
    "ok.empty-tensors": pack({"a": entry(shape=[0], end=0), "b": entry(), "c": entry(shape=[3, 0], begin=8, end=8)},
                             count(8)),
    "ok.huge-empty": pack({"a": entry(shape=[1 << 62, 0], end=0)}),
    "ok.rank-zero": pack({"a": entry(shape=[], end=4)}, count(4)),
    "ok.rank-64": pack({"a": entry(shape=[1] * 63 + [2])}, count(8)),
    "ok.misaligned": pack({"b": entry(dtype="U8", shape=[3], end=3), "a": entry(begin=3, end=11)}, count(11)),
    "ok.any-order": pack({"z": entry(begin=8, end=16), "a": entry()}, count(16)),
    "ok.odd-names": pack({"": entry(), "a\n\"\\\u00e9\U0001f600": entry(begin=8, end=16), "__metadata": entry(begin=16, end=24)},
                         count(24)),
    "ok.narrow-dtypes": pack(
        {"f4": entry(dtype="F4", shape=[4, 12], end=24), "f6": entry(dtype="F6_E2M3", shape=[4], begin=24, end=27),
         "bool": entry(dtype="BOOL", shape=[5], begin=27, end=32)}, count(32)),
}

OUT.mkdir(parents=True, exist_ok=True)
for stale in OUT.glob("*.safetensors"):
    stale.unlink()
for name, content in FILES.items():
    (OUT / (name + ".safetensors")).write_bytes(content)
print(len(FILES), "files in", OUT)
