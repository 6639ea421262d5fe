#!/usr/bin/env python3
"""The demo's own logic: it believes no output that lacks a field, and its page holds what it was given."""
import json
import sys
import unittest
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "demo"))
import demo  # noqa: E402
import page  # noqa: E402

LAYERS = [{"name": "blocks.0.q", "relative_error": 0.01, "sqnr_db": 40.0},
          {"name": "blocks.0.<k>", "relative_error": 0.03, "sqnr_db": 30.5},
          {"name": "blocks.0.v", "relative_error": 0.0, "sqnr_db": None}]


class Checker(HTMLParser):
    """Every opened element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


class DemoTest(unittest.TestCase):
    def test_comparison(self):
        found = demo.comparison(json.dumps({"layers": LAYERS}))
        self.assertAlmostEqual(found["mean_relative_error"], 0.04 / 3)
        self.assertEqual(found["worst_sqnr_db"], 30.5)
        self.assertEqual(found["layers"][0]["name"], "blocks.0.<k>")

    def test_comparison_believes_nothing(self):
        for text, expected in [
            ("warning: x\n{}", "is not JSON"),
            ("{}", "no field 'layers'"),
            ('{"layers": []}', "lists no layer"),
            (json.dumps({"layers": [LAYERS[2]]}), "no error at all"),
            (json.dumps({"layers": [{**LAYERS[0], "relative_error": "0.1"}]}), "field 'relative_error'"),
            (json.dumps({"layers": [{**LAYERS[0], "relative_error": True}]}), "field 'relative_error'"),
            (json.dumps({"layers": [{"name": "x", "relative_error": 0.1}]}), "no field 'sqnr_db'"),
        ]:
            with self.assertRaisesRegex(demo.DemoError, expected):
                demo.comparison(text)

    def test_run_reports_cost_and_failure(self):
        script = "b = bytearray(80_000_000); b[::4096] = b'x' * len(b[::4096]); print('out')"
        text, cost = demo.run([sys.executable, "-c", script])
        self.assertEqual(text, "out\n")
        self.assertGreater(cost["peak_bytes"], 80_000_000)
        own = demo.high_water("self")
        sleeper = demo.run(["sleep", "0.05"])[1]["peak_bytes"]
        self.assertTrue(0 < sleeper < own / 2, f"a small program shows {sleeper}, this one holds {own}")
        with self.assertRaisesRegex(demo.DemoError, "(?s)exit 3.*because"):
            demo.run([sys.executable, "-c", "import sys; sys.stderr.write('because'); sys.exit(3)"])

    def test_page(self):
        compared = demo.comparison(json.dumps({"layers": LAYERS}))
        row = {"target": "toy8", "summary": "a toy", "bytes": 500_000_000, "seconds": 2.0, "cpu_seconds": 3.0,
               "peak_bytes": 10**8, "mb_per_second": 500.0, **compared}
        report = {"made": "now", "machine": {"cpu": "A&B", "cores": 2, "memory_bytes": 8e9}, "version": "mezzotint 0",
                  "input": "in.safetensors", "input_bytes": 10**9, "blocks": 2, "plan": "a < b", "copy_seconds": 1.0,
                  "rows": [row]}
        head, rows = demo.table(report)
        self.assertEqual(rows[0][:5], ["toy8", "500.00 MB", "50.0%", "2.00 s", "500"])
        checker = Checker()
        checker.feed(page.render(report, head, rows))
        checker.close()
        self.assertEqual(checker.open, [])
        for text in ("A&B", "a < b", "blocks.0.<k>", "500.00 MB", "exact"):
            self.assertTrue(any(text in piece for piece in checker.text), text)


if __name__ == "__main__":
    unittest.main()
