// A list of many thousand events: only the rows in sight are in the page.
"use strict";

window.datacatEvents = (list, { count, levels, text, onChoose }) => {
  const ROW = 28;
  const space = document.createElement("div");
  space.className = "space";
  list.replaceChildren(space);
  let shown = [];
  let chosen = -1;
  let drawn = "";

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 8);
    const key = `${first} ${last} ${chosen} ${shown.length}`;
    if (key === drawn) return;
    drawn = key;
    // Rows that stay are left alone: a press on one that is drawn anew between down and up would be lost.
    const old = new Map([...space.children].map((row) => [row.dataset.key, row]));
    let place = space.firstChild;
    for (let at = first; at < last; at += 1) {
      const event = text(shown[at]);
      const key = `${at} ${shown[at]} ${event.clock} ${event.name} ${event.text}`;
      const row = old.get(key) || make(event, key, at);
      old.delete(key);
      row.setAttribute("aria-selected", String(shown[at] === chosen));
      row.setAttribute("aria-setsize", String(shown.length));
      if (row === place) place = place.nextSibling;
      else space.insertBefore(row, place);
    }
    old.forEach((row) => row.remove());
  }

  function make(event, key, at) {
    const row = document.createElement("div");
    row.className = `row level-${levels[event.level]}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-posinset", String(at + 1));
    row.style.transform = `translateY(${at * ROW}px)`;
    row.dataset.index = shown[at];
    row.dataset.key = key;
    for (const [name, value] of [["clock", event.clock], ["level", levels[event.level]], ["name", event.name], ["text", event.text]]) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.textContent = value;
      row.append(cell);
    }
    return row;
  }

  /** Show these events; a list that goes on stays where it is. */
  function show(indexes) {
    shown = indexes;
    space.style.height = `${Math.max(1, shown.length) * ROW}px`;
    drawn = "";
    draw();
  }

  /** Bring an event into sight; quiet: without telling that it was chosen. */
  function choose(index, quiet) {
    chosen = index;
    const at = shown.indexOf(index);
    if (at >= 0) {
      const top = at * ROW;
      if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - ROW) list.scrollTop = top - list.clientHeight / 2;
    }
    draw();
    if (!quiet) onChoose(index);
  }

  list.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  list.addEventListener("click", (event) => {
    const row = event.target.closest("[data-index]");
    if (row) choose(Number(row.dataset.index));
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    if (!step || !shown.length) return;
    event.preventDefault();
    const at = shown.indexOf(chosen);
    choose(shown[Math.max(0, Math.min(shown.length - 1, at < 0 ? 0 : at + step))]);
  });
  new ResizeObserver(() => { drawn = ""; draw(); }).observe(list);
  show([...Array(count).keys()]);
  return { show, choose };
};
