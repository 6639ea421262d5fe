"use strict";
// Sorting, filtering and tooltips. Everything it shows comes from the JSON in the page.
(() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  const layers = report.layers;
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.querySelectorAll("th")];
  const filter = document.getElementById("filter");
  const kept = document.getElementById("kept");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const keys = heads.map((head) => head.dataset.key);
  const FIRST = 100;
  let sortKey = "relative_error", down = true, all = false;

  const short = (value) => {
    if (value === 0) return "0";
    const digits = 2 - Math.floor(Math.log10(Math.abs(value)));
    return value.toFixed(Math.min(Math.max(digits, 0), 12));
  };
  const measured = (layer) => layer.fate === "measured";
  // null is an infinite number: JSON has none.
  const percent = (value) => (value === null ? "infinite" : short(100 * value) + " %");
  const decibels = (layer) =>
    layer.sqnr_db === null ? (layer.relative_error === 0 ? "exact" : "none") : layer.sqnr_db.toFixed(1) + " dB";
  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let unit = 0;
    for (; bytes >= 999.5 && unit + 1 < units.length; ++unit) bytes /= 1000;
    return unit === 0 ? bytes + " B" : bytes.toFixed(bytes < 99.95 ? 1 : 0) + " " + units[unit];
  };
  const precise = (value) => (value === null ? "" : String(Number(value.toPrecision(3))));
  const largest = Math.max(0, ...layers.filter(measured).map((layer) => layer.relative_error || 0));

  const element = (tag, name, ...children) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  };

  const cells = {
    to: (layer) => {
      const cell = element("td", "t wide");
      if (layer.fate !== "kept" && layer.from !== layer.to)
        cell.append(element("small", "", layer.from + " \u2192"), " ");
      cell.append(layer.to || layer.from);
      return cell;
    },
    relative_error: (layer) => {
      const cell = element("td", "n");
      if (!measured(layer)) return (cell.append(layer.fate === "kept" ? "kept" : "not measured"), cell);
      const bar = element("i");
      const share = layer.relative_error === null ? 1 : largest > 0 ? layer.relative_error / largest : 0;
      bar.style.width = 100 * share + "%";
      cell.append(bar, percent(layer.relative_error));
      return cell;
    },
    times_typical: (layer) => element("td", "n wide", layer.times_typical ? layer.times_typical.toFixed(2) : ""),
    sqnr_db: (layer) => element("td", "n", measured(layer) ? decibels(layer) : ""),
    max_error: (layer) => element("td", "n wide", measured(layer) ? precise(layer.max_error) : ""),
    bytes_out: (layer) => element("td", "n wide", size(layer.bytes_out)),
    optimizer: (layer) => {
      const cell = element("td", "t wide", layer.optimizer || "");
      if (layer.objective_ratio) cell.append(" ", element("small", "", "\u00d7 " + layer.objective_ratio.toFixed(2)));
      return cell;
    },
    seconds: (layer) => element("td", "n wide", layer.seconds ? layer.seconds.toFixed(2) + " s" : ""),
  };

  // write_table (html_table.cpp) writes the same cells: change both.
  const row = (layer) => {
    const made = element("tr", layer.stands_out ? "bad" : layer.fate === "kept" ? "same" : "");
    const name = element("th", "", layer.name);
    name.scope = "row";
    if (layer.note) name.title = layer.note;
    made.append(name);
    for (const key of keys.slice(1)) made.append(cells[key](layer));
    return made;
  };

  const value = (layer) => {
    const found = layer[sortKey];
    if (found === null) return sortKey === "sqnr_db" ? (layer.relative_error === 0 ? Infinity : -Infinity) : Infinity;
    return found;
  };
  // What has no value comes last, either way.
  const order = (a, b) => {
    const x = value(layers[a]), y = value(layers[b]);
    if (x === y) return a - b;
    if (x === undefined || y === undefined) return x === undefined ? 1 : -1;
    return (x < y ? -1 : 1) * (down ? -1 : 1);
  };

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const pool = layers.map((_, i) => i).filter((i) => kept.checked || layers[i].fate !== "kept");
    const hits = pool.filter((i) => {
      const text = (layers[i].name + " " + layers[i].from + " " + layers[i].to).toLowerCase();
      return words.every((word) => text.includes(word));
    });
    hits.sort(order);
    const shown = all ? hits : hits.slice(0, FIRST);
    body.replaceChildren(...shown.map((i) => row(layers[i])));
    count.textContent = (shown.length < hits.length ? shown.length + " of " : "") + hits.length +
      (words.length ? " of " + pool.length : "") + " layers";
    more.hidden = shown.length === hits.length;
    more.textContent = "Show all " + hits.length;
    heads.forEach((head) => {
      if (head.dataset.key === sortKey) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => {
    const key = head.dataset.key;
    // Text from a to z, numbers from the top; SQNR the other way round, worst first.
    down = key === sortKey ? !down : !(head.classList.contains("t") || key === "sqnr_db");
    sortKey = key;
    show();
  }));
  filter.addEventListener("input", show);
  kept.addEventListener("change", show);
  more.addEventListener("click", () => { all = true; show(); });

  const map = document.getElementById("map");
  if (map) {
    const say = (layer) => layer.name + "\n" + layer.from + (layer.to === layer.from ? "" : " \u2192 " + layer.to) +
      (measured(layer) ? "\nerror " + percent(layer.relative_error) : "\n" + layer.fate) +
      (layer.note ? "\n" + layer.note : "");
    map.addEventListener("mouseover", (event) => {
      const cell = event.target.closest("[data-i]");
      if (cell && !cell.title) cell.title = say(layers[cell.dataset.i]);
    });
    map.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-i]");
      if (!cell) return;
      const layer = layers[cell.dataset.i];
      filter.value = layer.name;
      kept.checked = kept.checked || layer.fate === "kept";
      show();
      document.getElementById("layers").scrollIntoView();
    });
  }

  if (navigator.clipboard) {
    document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    }));
  } else {
    document.querySelectorAll(".copy").forEach((button) => button.remove());
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
  });
  document.documentElement.classList.add("js");
  show();
})();
