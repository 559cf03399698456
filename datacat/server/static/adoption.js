// Which versions are used, over time: shares on top of each other.
"use strict";

(() => {
  const figure = document.getElementById("adoption");
  if (!figure || !window.uPlot) return;
  const { versions, series } = JSON.parse(figure.dataset.chart);
  const place = figure.querySelector(".plot");
  if (series[0].length < 2) { place.textContent = "Too short a span for a chart."; return; }
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const HEIGHT = 180;

  function draw() {
    place.replaceChildren();
    const sums = new Array(series[0].length).fill(0);
    const stacked = versions.map((_, at) => series[at + 1].map((share, point) => { sums[point] += share; return sums[point]; }));
    const axis = { stroke: color("soft"), grid: { stroke: color("hair"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    // The topmost first: each is drawn over what is under it.
    const order = versions.map((_, at) => at).reverse();
    return new uPlot({
      width: place.clientWidth, height: HEIGHT, legend: { show: false }, cursor: { show: false }, select: { show: false },
      scales: { y: { range: [0, 1] } },
      axes: [axis, { ...axis, size: 48, values: (_, ticks) => ticks.map((tick) => `${Math.round(tick * 100)} %`) }],
      series: [{}, ...order.map((at) => ({ stroke: color("card"), width: 1, fill: color(`line-${at}`), points: { show: false } }))],
    }, [series[0], ...order.map((at) => stacked[at])], place);
  }

  let plot = draw();
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    plot.setSize({ width, height: HEIGHT });
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot.destroy(); plot = draw(); });
})();
