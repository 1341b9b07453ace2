"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map(data.plots.map((plot) => [plot.name, plot]));
  const palette = ["#3b7dd8", "#e8833a", "#2f9e6e", "#c44e8a", "#8367c7", "#b8952b", "#2ea3b5", "#d5504f", "#7d8899", "#6b8e23"];
  const drawn = [];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Elapsed time as a date axis from 1970 on: its ticks and zoom then speak hours, minutes and seconds.
  const moment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, -1);

  async function library() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function traces(plot) {
    return plot.lines.map((line, number) => {
      const x = line.x || line.y.map((_, cell) => moment(plot.start + cell * plot.step));
      const color = palette[number % palette.length];
      const trace = { x, y: line.y, name: line.name, type: "scatter", mode: "lines", line: { width: 1.8, color },
        connectgaps: false, hovertemplate: `%{y:.4~g} ${plot.unit}` + (plot.axis ? ` at %{x:.4~g} ${plot.axis}` : "") };
      if (plot.style === "scatter") Object.assign(trace, { mode: "markers", marker: { size: 6, color, opacity: 0.65 } });
      // A stack takes a gap for 0 and would slope to it: it ends at the gap and begins anew behind it.
      if (plot.style === "area") Object.assign(trace, { stackgroup: "all", line: { width: 0.7, color }, fillcolor: color + "b0" });
      return trace;
    });
  }

  function split(plot) {
    if (plot.style !== "area") return traces(plot);
    const holes = plot.lines[0].y.map((_, cell) => plot.lines.every((line) => line.y[cell] === null));
    const runs = [];
    holes.forEach((hole, cell) => {
      if (hole) return;
      if (cell === 0 || holes[cell - 1]) runs.push([]);
      runs[runs.length - 1].push(cell);
    });
    return traces(plot).flatMap((trace) => runs.map((cells, run) => ({ ...trace, stackgroup: `run${run}`, legendgroup: trace.name,
      showlegend: run === 0, x: cells.map((cell) => trace.x[cell]), y: cells.map((cell) => trace.y[cell] || 0) })));
  }

  // Only what lies within a plot's own time: a band beyond it would stretch its axis.
  function bands(plot) {
    if (plot.axis) return [];
    const begin = plot.start - plot.step / 2, end = begin + plot.step * plot.lines[0].y.length;
    return data.bands.filter((band) => band.from < end && band.to > begin)
      .map((band) => ({ ...band, from: Math.max(band.from, begin), to: Math.min(band.to, end) }));
  }

  function shapes(plot) {
    const found = [];
    for (const band of bands(plot)) {
      found.push({ type: "rect", xref: "x", yref: "paper", x0: moment(band.from), x1: moment(band.to), y0: 0, y1: 1,
        fillcolor: css(`--${band.kind}`), line: { width: 0 }, layer: "below" });
    }
    if (plot.band) {
      for (const y of plot.band) {
        found.push({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: y, y1: y, line: { color: css("--quiet"), width: 1, dash: "dot" } });
      }
    }
    return found;
  }

  function labels(plot) {
    const named = bands(plot).filter((band) => band.kind !== "phase" || data.bands.length > 1);
    return named.map((band) => ({ x: moment(band.from), y: 1, xref: "x", yref: "paper", text: band.label, showarrow: false,
      xanchor: "left", yanchor: band.kind === "phase" ? "bottom" : "top", font: { size: 10, color: css("--quiet") } }));
  }

  function layout(plot) {
    const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
    const x = plot.axis ? { ...axis, title: { text: plot.axis, font: { size: 12 } }, rangemode: "tozero" }
      : { ...axis, type: "date", hoverformat: "%H:%M:%S",
          tickformatstops: [{ dtickrange: [null, 1000], value: "%M:%S.%L" }, { dtickrange: [1000, null], value: "%H:%M:%S" }] };
    const values = plot.lines.flatMap((line) => line.y).filter((value) => value !== null);
    const y = { ...axis, rangemode: "tozero", type: plot.log ? "log" : "linear", exponentformat: "none", nticks: 6 };
    if (plot.log) {
      const ticks = [-4, -3, -2, -1, 0, 1, 2].flatMap((power) => [1, 2, 5].map((digit) => +`${digit}e${power}`));
      Object.assign(y, { tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) });
    }
    // A ratio that stays near 1 is read against its band, not against 0.
    if (plot.band && Math.min(...values) > 0.5) y.range = [Math.min(0.9, ...values) - 0.02, Math.max(1.1, ...values) + 0.02];
    return { margin: { l: 48, r: 10, t: 14, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--text") },
      hovermode: plot.axis ? "closest" : "x unified", hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--text") } },
      showlegend: true, legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", font: { size: 11 } },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: x, yaxis: y, shapes: shapes(plot), annotations: labels(plot) };
  }

  // A zoom of one time plot zooms them all.
  function follow(source, change) {
    const range = "xaxis.range[0]" in change ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : null;
    if (!range && !change["xaxis.autorange"]) return;
    for (const { canvas, plot } of drawn) {
      if (canvas === source || plot.axis) continue;
      const now = canvas.layout.xaxis;
      if (range ? String(now.range) !== String(range) : !now.autorange) {
        Plotly.relayout(canvas, range ? { "xaxis.range": range } : { "xaxis.autorange": true });
      }
    }
  }

  async function draw(figure) {
    const plot = byName.get(figure.dataset.plot);
    const canvas = figure.querySelector(".canvas");
    const rows = Math.ceil(plot.lines.reduce((sum, line) => sum + line.name.length * 6 + 48, 0) / canvas.clientWidth);
    canvas.style.height = `${260 + Math.min(rows, 10) * 20}px`;
    await Plotly.newPlot(canvas, split(plot), layout(plot), { responsive: true, displaylogo: false, displayModeBar: false });
    drawn.push({ canvas, plot });
    if (!plot.axis) canvas.on("plotly_relayout", (change) => follow(canvas, change));
  }

  // Paper is narrower than most screens, and always light.
  addEventListener("beforeprint", () => drawn.forEach(({ canvas, plot }) => Plotly.relayout(canvas, { ...layout(plot), width: 680 })));
  addEventListener("afterprint", () => drawn.forEach(({ canvas, plot }) => Plotly.relayout(canvas, { ...layout(plot), width: null, autosize: true })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(({ canvas, plot }) => Plotly.relayout(canvas, layout(plot))));

  async function main() {
    const figures = [...document.querySelectorAll(".plot")];
    try {
      await library();
      for (const figure of figures) await draw(figure);
    } catch (error) {
      const words = document.createElement("p");
      words.textContent = `The plots cannot be drawn by this browser (${error.message}); all tables stand without them.`;
      document.querySelector("footer").prepend(words);
    }
    document.documentElement.dataset.drawn = drawn.length;
  }
  main();
})();
