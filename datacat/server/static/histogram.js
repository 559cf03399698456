// The histogram above the list of sessions; dragging over it chooses a span.
"use strict";

(() => {
  const figure = document.getElementById("histogram");
  if (!figure || !window.uPlot) return;
  const { series, interval_s: interval } = JSON.parse(figure.dataset.chart);
  const place = figure.querySelector(".plot");
  if (!series[0].length) return;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const bars = uPlot.paths.bars({ size: [0.82, 40], align: 1 });
  const bar = (label, name) => ({ label, fill: color(name), width: 0, paths: bars, points: { show: false } });
  const axis = { stroke: color("soft"), grid: { stroke: color("hair"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };

  function draw() {
    place.replaceChildren();
    return new uPlot({
      width: place.clientWidth, height: 120, legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: true, range: (_, low, high) => [low, high + interval] }, y: { range: (_, low, high) => [0, Math.max(4, high)] } },
      axes: [axis, { ...axis, size: 34 }],
      series: [{}, bar("started", "faint"), bar("hung", "hung"), bar("crashed", "crashed")],
      hooks: {
        setSelect: [(plot) => {
          if (plot.select.width < 4) return;
          const to = (x) => Math.round(plot.posToVal(x, "x") * 1000);
          const link = new URL(figure.dataset.base, location.origin);
          link.searchParams.set("from", to(plot.select.left));
          link.searchParams.set("to", to(plot.select.left + plot.select.width));
          location.assign(link);
        }],
      },
    }, [series[0], series[1], series[3], series[2]], place);
  }

  let plot = draw();
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    plot.setSize({ width, height: 120 });
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot.destroy(); plot = draw(); });
})();
