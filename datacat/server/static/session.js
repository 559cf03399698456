// One time axis for status, events, state and metrics; a cursor on it shows the session at that moment.
"use strict";

(async () => {
  const axis = document.getElementById("axis");
  if (!axis) return;
  const id = axis.dataset.session;
  const lanes = axis.querySelector(".lanes");
  const answer = await fetch(`/sessions/${id}/timeline`);
  if (!answer.ok) { lanes.textContent = `The records cannot be read (${answer.status}).`; return; }
  const data = await answer.json();
  const { events, levels, changes } = data;
  let total = Math.max(1, data.to - data.from);
  const address = new URL(location.href);
  const numberOf = (name, otherwise) => {
    const text = address.searchParams.get(name);
    return text !== null && Number.isFinite(Number(text)) ? Number(text) : otherwise;
  };
  let low = Math.max(0, numberOf("from", data.from) - data.from);
  let high = Math.min(total, numberOf("to", data.to) - data.from);
  if (high - low < 1000) { low = 0; high = total; }
  let cursor = Math.max(0, Math.min(total, numberOf("at", data.to) - data.from));
  let since = null;
  const charts = [];
  const readers = [];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
  const clockOf = (t) => clock.format(new Date((data.from + t) / 1000));

  // --- lanes ---------------------------------------------------------------------------------------------------------
  function lane(name, height) {
    const row = document.createElement("div");
    row.className = "lane";
    const label = document.createElement("span");
    label.className = "lane-name";
    label.textContent = name;
    label.title = name;
    const canvas = document.createElement("canvas");
    canvas.className = "lane-plot";
    canvas.dataset.height = height;
    row.append(label, canvas);
    lanes.append(row);
    return canvas;
  }

  function prepare(canvas) {
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = Number(canvas.dataset.height);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height, x: (t) => ((t - low) / (high - low)) * width };
  }

  function drawRibbon(canvas) {
    const { pen, width, height, x } = prepare(canvas);
    data.status.forEach(([t, word], at) => {
      const next = at + 1 < data.status.length ? data.status[at + 1][0] : total;
      // The end has no length: it is marked beside the axis' last moment.
      const left = Math.max(0, at > 0 && t === total ? Math.min(x(t), width) - 7 : x(t));
      const right = Math.min(width, Math.max(x(next), left + 3));
      if (right < 0 || left > width) return;
      pen.fillStyle = color(word);
      // Shape as well as colour: what is not well is drawn higher.
      const tall = word === "active" ? 0.45 : word === "ended" ? 0.3 : 1;
      pen.fillRect(left, height * (1 - tall), right - left, height * tall);
      if (word === "suspended") {
        pen.fillStyle = color("card");
        for (let stripe = left + 3; stripe < right - 2; stripe += 6) pen.fillRect(stripe, 2, 2, height - 4);
      }
      if (right - left > 64) {
        pen.fillStyle = tall === 1 ? color("card") : color("ink");
        pen.font = "600 11px system-ui, sans-serif";
        pen.textBaseline = tall === 1 ? "middle" : "top";
        pen.fillText(word, left + 6, tall === 1 ? height / 2 : 0);
      }
    });
  }

  function drawDensity(canvas, times, name, only) {
    const { pen, width, height, x } = prepare(canvas);
    const bins = new Uint32Array(Math.ceil(width / 3) + 1);
    let most = 0;
    for (let at = 0; at < times.length; at += 1) {
      if (only && !only(at)) continue;
      const place = x(times[at]);
      if (place < 0 || place > width) continue;
      const bin = Math.floor(place / 3);
      bins[bin] += 1;
      if (bins[bin] > most) most = bins[bin];
    }
    pen.fillStyle = color(name);
    for (let bin = 0; bin < bins.length; bin += 1) {
      if (!bins[bin]) continue;
      const tall = Math.max(4, height * Math.sqrt(bins[bin] / most));
      pen.fillRect(bin * 3, height - tall, 2, tall);
    }
  }

  function drawTimes(canvas) {
    const { pen, width, height, x } = prepare(canvas);
    const steps = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400].map((s) => s * 1e6);
    const step = steps.find((length) => ((high - low) / length) * 90 < width) || steps.at(-1);
    pen.fillStyle = color("soft");
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "top";
    const first = Math.ceil((data.from + low) / step) * step - data.from;
    for (let t = first; t <= high; t += step) {
      if (x(t) > width - 60) break;
      pen.fillRect(x(t), 0, 1, 4);
      pen.fillText(clockOf(t).slice(0, 8), x(t) + 4, 3);
    }
    return height;
  }

  lanes.replaceChildren();
  const drawers = [];
  const ribbon = lane("status", 22);
  drawers.push(() => drawRibbon(ribbon));
  const toned = { debug: "faint", info: "link", warning: "hung", error: "crashed", critical: "crashed" };
  levels.slice().reverse().forEach((level) => {
    const number = levels.indexOf(level);
    // Every level has its lane in every session: a picture that is the same everywhere is read at a glance.
    const canvas = lane(level, 18);
    drawers.push(() => drawDensity(canvas, events.t, toned[level], (at) => events.level[at] === number));
  });
  const stateLane = lane("state", 18);
  drawers.push(() => drawDensity(stateLane, changes, "suspended"));
  const SHOWN = 4;
  data.metrics.forEach((metric, number) => {
    const row = document.createElement("div");
    row.className = "lane chart-lane";
    row.hidden = number >= SHOWN;
    const label = document.createElement("span");
    label.className = "lane-name";
    label.textContent = metric.name;
    label.title = metric.unit ? `${metric.name} (${metric.unit})` : metric.name;
    const place = document.createElement("div");
    place.className = "lane-plot";
    row.append(label, place);
    lanes.append(row);
    let plot = null;
    let sum = 0;
    // A counter's records hold increments: its line is what they add up to.
    const added = () => { sum = 0; return metric.type === "counter" ? metric.v.map((value) => { sum += value; return sum; }) : metric.v; };
    const shown = document.createElement("b");
    label.append(document.createElement("br"), shown);
    readers.push(() => {
      const values = plot ? plot.data[1] : added();
      const at = metric.t.findLastIndex((t) => t <= cursor);
      shown.textContent = at < 0 ? "" : window.datacatMeasure(values[at], metric.unit);
    });
    drawers.push(() => {
      if (row.hidden) return;
      const width = place.clientWidth;
      if (plot) {
        if (plot.data[0] !== metric.t || plot.data[1].length !== metric.t.length) plot.setData([metric.t, added()], false);
        plot.setSize({ width, height: 56 });
        plot.setScale("x", { min: low, max: high });
        return;
      }
      plot = new uPlot({
        width, height: 56, legend: { show: false }, padding: [6, 0, 4, 0],
        cursor: { show: false }, select: { show: false },
        scales: { x: { time: false, auto: false, min: low, max: high }, y: { range: (_, least, most) => least === most ? [least - 1, most + 1] : [least, most] } },
        axes: [{ show: false }, { show: false }],
        series: [{}, { stroke: color("link"), width: 1.4, points: { show: metric.t.length < 40, size: 4 } }],
      }, [metric.t, added()], place);
      plot.setScale("x", { min: low, max: high });
      charts.push(plot);
    });
  });
  if (data.metrics.length > SHOWN) {
    const more = document.createElement("button");
    more.type = "button";
    more.textContent = `${data.metrics.length - SHOWN} more metrics`;
    more.addEventListener("click", () => {
      lanes.querySelectorAll(".chart-lane").forEach((row) => { row.hidden = false; });
      more.remove();
      draw();
    });
    lanes.append(more);
  }
  const times = lane("", 20);
  drawers.push(() => drawTimes(times));
  const line = document.createElement("div");
  line.className = "cursor";
  const brush = document.createElement("div");
  brush.className = "brush";
  brush.hidden = true;
  lanes.append(line, brush);

  const gutter = () => ribbon.offsetLeft;
  const plotWidth = () => ribbon.clientWidth;
  const timeAt = (event) => {
    const place = event.clientX - lanes.getBoundingClientRect().left - gutter();
    return Math.round(low + Math.max(0, Math.min(1, place / plotWidth())) * (high - low));
  };

  function placeCursor() {
    const share = (cursor - low) / (high - low);
    line.hidden = share < 0 || share > 1;
    line.style.left = `${gutter() + share * plotWidth()}px`;
    line.title = clockOf(cursor);
    readers.forEach((read) => read());
  }

  function draw() { drawers.forEach((one) => one()); placeCursor(); }

  function remember() {
    const put = (name, value, usual) => {
      if (value === usual) address.searchParams.delete(name);
      else address.searchParams.set(name, String(data.from + value));
    };
    put("from", low, 0);
    put("to", high, total);
    put("at", cursor, total);
    history.replaceState(null, "", address);
  }

  function zoom(from, to) {
    low = Math.max(0, from);
    high = Math.min(total, Math.max(to, low + 1000));
    remember();
    draw();
  }

  // --- the moment ----------------------------------------------------------------------------------------------------
  const panel = document.getElementById("moment");
  let asked = 0;
  let told = "";
  async function look(quietly = false) {
    asked += 1;
    const mine = asked;
    if (!quietly) panel.setAttribute("aria-busy", "true");
    panel.setAttribute("aria-live", quietly ? "off" : "polite");
    const query = new URLSearchParams({ at: String(data.from + cursor) });
    if (since !== null) query.set("since", String(data.from + since));
    try {
      const found = await fetch(`/sessions/${id}/moment?${query}`);
      // Answers may overtake each other: only the one for where the cursor is now counts.
      if (mine !== asked) return;
      const text = found.ok ? await found.text() : "";
      if (quietly && text === told) return;
      told = text;
      panel.innerHTML = text;
      if (!found.ok) panel.textContent = `This moment cannot be read (${found.status}).`;
      document.dispatchEvent(new CustomEvent("datacat:shown", { detail: panel }));
    } catch {
      if (mine === asked) panel.textContent = "The server does not answer.";
    }
    panel.removeAttribute("aria-busy");
  }

  function moveTo(t, before = null) {
    cursor = Math.max(0, Math.min(total, t));
    since = before;
    if (cursor < low || cursor > high) {
      const half = (high - low) / 2;
      low = Math.max(0, cursor - half);
      high = Math.min(total, low + 2 * half);
      draw();
    }
    placeCursor();
    remember();
    look();
  }

  function step(way) {
    const stops = [...new Set([...changes, ...data.status.map(([t]) => t)])].sort((one, other) => one - other);
    const next = way > 0 ? stops.find((t) => t > cursor) : stops.findLast((t) => t < cursor);
    if (next !== undefined) moveTo(next);
  }

  let down = null;
  lanes.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("button")) return;
    down = { x: event.clientX, t: timeAt(event) };
    lanes.setPointerCapture(event.pointerId);
  });
  lanes.addEventListener("pointermove", (event) => {
    if (!down || Math.abs(event.clientX - down.x) < 4) return;
    const [from, to] = [down.t, timeAt(event)].sort((one, other) => one - other);
    brush.hidden = false;
    brush.style.left = `${gutter() + ((from - low) / (high - low)) * plotWidth()}px`;
    brush.style.width = `${((to - from) / (high - low)) * plotWidth()}px`;
  });
  lanes.addEventListener("pointerup", (event) => {
    if (!down) return;
    const [from, to] = [down.t, timeAt(event)].sort((one, other) => one - other);
    const dragged = Math.abs(event.clientX - down.x) >= 4;
    down = null;
    brush.hidden = true;
    if (dragged) zoom(from, to); else moveTo(to);
  });
  lanes.addEventListener("dblclick", () => zoom(0, total));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, [role=listbox]")) return;
    if (event.key === "ArrowRight") { event.preventDefault(); step(1); }
    else if (event.key === "ArrowLeft") { event.preventDefault(); step(-1); }
  });
  axis.querySelector("[data-reset]").addEventListener("click", () => zoom(0, total));
  axis.querySelector("[data-last]").addEventListener("click", () => {
    const from = Math.max(0, total - 60e6);
    zoom(from, total);
    moveTo(total, from);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-at]");
    if (button) { moveTo(Number(button.dataset.at) - data.from); axis.scrollIntoView({ block: "start" }); }
  });

  // --- the events ----------------------------------------------------------------------------------------------------
  const list = document.getElementById("events");
  const search = document.getElementById("events-search");
  const least = document.getElementById("events-level");
  const detail = document.getElementById("event-detail");
  const soughtOf = (at) => `${data.names[events.name[at]]} ${events.text[at]}`.toLowerCase();
  let sought = events.t.map((_, at) => soughtOf(at));
  const shower = window.datacatEvents(list, {
    count: events.t.length,
    levels,
    text: (at) => ({ clock: clockOf(events.t[at]), level: events.level[at], name: data.names[events.name[at]], text: events.text[at] }),
    onChoose: async (at) => {
      moveTo(events.t[at]);
      const t = data.from + events.t[at];
      const found = await fetch(`/sessions/${id}/event?${new URLSearchParams({ at: String(t), name: data.names[events.name[at]] })}`);
      detail.innerHTML = found.ok ? await found.text() : "";
      document.dispatchEvent(new CustomEvent("datacat:shown", { detail }));
    },
  });
  function filter() {
    const words = search.value.trim().toLowerCase();
    const from = Number(least.value);
    const found = [];
    for (let at = 0; at < sought.length; at += 1) {
      if (events.level[at] >= from && (!words || sought[at].includes(words))) found.push(at);
    }
    shower.show(found);
    const all = events.t.length + data.more_events;
    document.getElementById("events-count").textContent = found.length === all ? `${all}` : `${found.length} of ${all}`;
  }
  search.addEventListener("input", filter);
  least.addEventListener("change", filter);
  filter();
  if (data.open) list.scrollTop = list.scrollHeight;

  // --- a session that is open goes on ---------------------------------------------------------------------------------
  const OVERLAP_US = 30e6;
  const LIVE_MS = 800;
  async function goOn() {
    if (!document.hidden) {
      try {
        const since = data.from + Math.max(0, total - OVERLAP_US);
        const found = await fetch(`/sessions/${id}/timeline?${new URLSearchParams({ since, seen: data.updated })}`);
        if (found.status === 401) { location.reload(); return; }
        if (found.status === 200) grow(await found.json(), since - data.from);
      } catch { /* the note that the server is away comes from the headline, which asks too */ }
    }
    if (data.open) setTimeout(goOn, LIVE_MS);
  }

  /** Take what is new; records may come late, so what the answer covers is replaced. Times of `more` begin where ours do. */
  function grow(more, since) {
    const isLast = cursor >= total;
    const keepsUp = high >= total;
    const atEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 40;
    const before = events.t.length;
    const cut = (times) => { const at = times.findIndex((t) => t >= since); return at < 0 ? times.length : at; };
    const kept = cut(events.t);
    for (const column of ["t", "level", "name", "text"]) events[column].length = kept;
    more.events.t.forEach((t, at) => {
      const name = more.names[more.events.name[at]];
      let number = data.names.indexOf(name);
      if (number < 0) number = data.names.push(name) - 1;
      events.t.push(t); events.level.push(more.events.level[at]); events.name.push(number); events.text.push(more.events.text[at]);
    });
    sought = sought.slice(0, kept);
    for (let at = kept; at < events.t.length; at += 1) sought.push(soughtOf(at));
    changes.splice(cut(changes), Infinity, ...more.changes);
    data.metrics.forEach((metric) => {
      const fresh = more.metrics.find((one) => one.name === metric.name);
      const from = cut(metric.t);
      metric.t = [...metric.t.slice(0, from), ...(fresh ? fresh.t : [])];
      metric.v = [...metric.v.slice(0, from), ...(fresh ? fresh.v : [])];
    });
    Object.assign(data, { status: more.status, updated: more.updated, open: more.open, more_events: more.more_events, to: more.to });
    total = Math.max(1, more.to - data.from);
    if (keepsUp) high = total;
    if (isLast) cursor = total;
    draw();
    filter();
    if (atEnd && events.t.length !== before) list.scrollTop = list.scrollHeight;
    // The moment is told again when it is the newest one and nobody reads in it.
    const isRead = panel.matches(":hover, :focus-within, :has(details[open])") || panel.contains(getSelection().anchorNode);
    if (isLast && !isRead) look(true);
  }

  // --- links into the source -----------------------------------------------------------------------------------------
  const links = document.getElementById("source-links");
  function linkSources() {
    const form = links.value === "custom" ? localStorage.getItem("datacat-source") || "" : links.value;
    document.querySelectorAll("[data-file]").forEach((node) => {
      const label = node.dataset.line ? `${node.dataset.file}:${node.dataset.line}` : node.dataset.file;
      const href = form.replace("{file}", encodeURI(node.dataset.file)).replace("{line}", node.dataset.line || "1");
      // Only addresses of editors and pages: what an app calls its files is not to become a script.
      if (!/^(https?|vscode|pycharm|idea|cursor|zed|txmt|subl):/i.test(href)) { node.textContent = label; return; }
      const link = document.createElement("a");
      link.href = href;
      link.rel = "noreferrer";
      link.textContent = label;
      node.replaceChildren(link);
    });
  }
  if (links) {
    links.value = localStorage.getItem("datacat-links") || "";
    links.addEventListener("change", () => {
      if (links.value === "custom") {
        const form = prompt("Address of a line of source, with {file} and {line}:", localStorage.getItem("datacat-source") || "https://example.org/blob/main{file}#L{line}");
        if (form) localStorage.setItem("datacat-source", form);
      }
      localStorage.setItem("datacat-links", links.value);
      linkSources();
    });
    linkSources();
  }

  let width = lanes.clientWidth;
  new ResizeObserver(() => { if (lanes.clientWidth !== width) { width = lanes.clientWidth; draw(); } }).observe(lanes);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
  draw();
  if (address.searchParams.has("at")) look();
  if (data.open) setTimeout(goOn, LIVE_MS);
  axis.dataset.ready = "";
})();
