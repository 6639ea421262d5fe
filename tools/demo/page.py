"""The demo's report as one self-contained HTML page: a table, bars in SVG, the worst layers, the plan."""
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg text { font: 13px system-ui, sans-serif; fill: #222; } .note { color: #666; }
pre { background: #f6f6f4; padding: .8rem; overflow-x: auto; font-size: 12px; }
"""


def bars(title, rows, show, color):
    """Horizontal bars from zero; rows are (label, value)."""
    largest = max(value for _, value in rows)
    height = 24 * len(rows)
    parts = [f"<h2>{escape(title)}</h2>",
             f'<svg width="100%" viewBox="0 0 900 {height}" role="img" aria-label="{escape(title)}">']
    for index, (label, value) in enumerate(rows):
        top = 24 * index
        width = 480 * value / largest if largest > 0 else 0
        parts.append(f'<text x="0" y="{top + 16}">{escape(label)}</text>'
                     f'<rect x="280" y="{top + 4}" width="{width:.1f}" height="15" fill="{color}"/>'
                     f'<text x="{288 + width:.1f}" y="{top + 16}">{escape(show(value))}</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def html_table(head, rows):
    def line(tag, cells):
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    return "\n".join(["<table>", line("th", head), *(line("td", row) for row in rows), "</table>"])


def worst_layers(report, count=5):
    head = ["layer", "format", "relative error", "SQNR"]
    rows = []
    for row in report["rows"]:
        for layer in row["layers"][:count]:
            ratio = "exact" if layer["sqnr_db"] is None else f"{layer['sqnr_db']:.1f} dB"
            rows.append([layer["name"], row["target"], f"{layer['relative_error']:.4f}", ratio])
    return html_table(head, rows)


def render(report, head, rows):
    machine = report["machine"]
    converted = report["rows"]
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Mezzotint: demo</title>',
        f"<style>{STYLE}</style></head><body>",
        "<h1>One checkpoint, 8- and 4-bit formats</h1>",
        f"<p>{escape(report['input'])}: the names and shapes of Wan2.2 TI2V 5B, {report['blocks']} of its blocks at "
        "full width, heavy-tailed made-up weights with outlier columns from a fixed seed. Errors say how far the stored "
        "weights are from the input; they do not say how pictures look.</p>",
        html_table(head, rows),
        f'<p class="note">One run each, warm cache. Time is that of the whole process, until the file is on the disk. '
        f"{escape(report['version'])}; {escape(machine['cpu'])}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.1f} GB; {escape(report['made'])}.</p>",
        bars("Size", [("input", report["input_bytes"])] + [(r["target"], r["bytes"]) for r in converted],
             lambda v: f"{v / 1e6:.0f} MB", "#7a8fa6"),
        bars("Time", [("copy of the input", report["copy_seconds"])] + [(r["target"], r["seconds"]) for r in converted],
             lambda v: f"{v:.2f} s", "#a68f7a"),
        bars("Mean relative error of the weights", [(r["target"], r["mean_relative_error"]) for r in converted],
             lambda v: f"{v:.4f}", "#8fa67a"),
        "<h2>Layers with the largest error</h2>", worst_layers(report),
        f"<h2>The plan for {escape(converted[0]['target'])}</h2>", f"<pre>{escape(report['plan'])}</pre>",
        "</body></html>", ""])
