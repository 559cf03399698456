// What every page has: times in the reader's zone, keys, a note when the server is away.
"use strict";

(() => {
  const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const format = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

  const forms = { clock, date: new Intl.DateTimeFormat(undefined, { year: "numeric", month: "2-digit", day: "2-digit" }) };

  /** Show each <time datetime> in the reader's zone; the title keeps UTC. */
  function localTimes(root) {
    for (const node of root.querySelectorAll("time[datetime]:not([data-local])")) {
      const when = new Date(node.dateTime);
      if (Number.isNaN(when.getTime())) continue;
      node.title = `${node.dateTime.replace("T", " ").replace("Z", "")} UTC`;
      node.textContent = (forms[node.dataset.form] || format).format(when);
      node.dataset.local = "";
    }
  }

  /** Return a value with its unit (UCUM, as OpenTelemetry writes units) as people read it. */
  window.datacatMeasure = (value, unit) => {
    const short = (number) => Number(number.toPrecision(4)).toLocaleString();
    if (unit === "By") {
      const step = value ? Math.max(0, Math.min(4, Math.floor(Math.log10(Math.abs(value)) / 3))) : 0;
      return `${Number((value / 1000 ** step).toPrecision(3))} ${["bytes", "kB", "MB", "GB", "TB"][step]}`;
    }
    if (unit === "s" && value !== 0 && Math.abs(value) < 1) return `${Number((value * 1000).toPrecision(3))} ms`;
    return unit && unit !== "1" && !unit.startsWith("{") ? `${short(value)} ${unit}` : short(value);
  };

  /** Move between the rows of the page's first list of links. */
  function move(step) {
    const rows = [...document.querySelectorAll("[data-rows] > tr, [data-rows] > li")].filter((row) => row.querySelector("a"));
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("chosen"));
    const next = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step))];
    if (at >= 0) rows[at].classList.remove("chosen");
    next.classList.add("chosen");
    next.querySelector("a").focus();
  }

  const isTyping = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    if (isTyping(event.target)) return;
    const help = document.getElementById("help");
    if (event.key === "/") { event.preventDefault(); document.querySelector("input[type=search]")?.focus(); }
    else if (event.key === "?") { event.preventDefault(); if (help.open) help.close(); else help.showModal(); }
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
  });

  document.addEventListener("click", (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const text = document.getElementById(copy.dataset.copy).innerText;
      navigator.clipboard?.writeText(text).then(() => { copy.textContent = "Copied"; });
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.closest("[data-help]")) document.getElementById("help").showModal();
  });

  // A select that stands for a filter applies itself; without scripts there is a button.
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-apply]")) event.target.form.requestSubmit();
  });

  const offline = document.getElementById("offline");
  const live = () => document.querySelectorAll(".live");
  const away = (is) => { offline.hidden = !is; live().forEach((node) => node.classList.toggle("stale", is)); };
  document.body.addEventListener("htmx:sendError", () => away(true));
  document.body.addEventListener("htmx:responseError", (event) => away(event.detail.xhr.status >= 500));
  document.body.addEventListener("htmx:afterOnLoad", () => away(false));
  // A page that nobody looks at asks for nothing.
  document.body.addEventListener("htmx:beforeRequest", (event) => { if (document.hidden) event.preventDefault(); });
  // A fragment that says the same as before changes nothing, so that nothing moves and a selection stays.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (!target || !target.hasAttribute("data-live")) return;
    if (target.dataset.seen === xhr.responseText) event.detail.shouldSwap = false;
    target.dataset.seen = xhr.responseText;
  });
  document.body.addEventListener("htmx:afterSettle", (event) => localTimes(event.detail.elt));

  document.addEventListener("datacat:shown", (event) => localTimes(event.detail));

  document.querySelectorAll("[data-zone]").forEach((node) => { node.textContent = `times are ${ZONE}`; });
  localTimes(document);
})();
