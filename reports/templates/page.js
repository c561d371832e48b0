"use strict";
(() => {
  const root = document.documentElement;
  const recall = (key, value) => {
    try { return value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value); } catch { return null; }
  };

  const toggle = document.querySelector(".theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => {
    toggle.textContent = dark() ? toggle.dataset.light : toggle.dataset.dark;
    toggle.setAttribute("aria-pressed", String(dark()));
  };
  const kept = recall("vlpbench-theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    recall("vlpbench-theme", root.dataset.theme);
    show();
  });
  show();

  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v;
    return value === undefined ? null : Number(value);
  };
  const sort = (table, column, descending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, value: key(row, column), text: row.cells[column].textContent.trim() }));
    const numeric = rows.some((entry) => entry.value !== null);
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      if (!numeric) return sign * a.text.localeCompare(b.text, root.lang, { numeric: true });
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return sign * (a.value - b.value);
    });
    body.append(...rows.map((entry) => entry.row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const descending = now === "none" ? head.dataset.better === "higher" : now === "ascending";
        heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }

  for (const box of document.querySelectorAll("input[data-filters]")) {
    const target = document.getElementById(box.dataset.filters);
    const entries = target.tBodies ? [...target.tBodies[0].rows] : [...target.children];
    const texts = new Map(entries.map((entry) => [entry, entry.textContent.toLowerCase()]));
    const out = box.parentElement.parentElement.querySelector("output");
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [entry, text] of texts) {
        entry.hidden = !words.every((word) => text.includes(word));
        shown += entry.hidden ? 0 : 1;
      }
      out.textContent = words.length ? `${shown} / ${entries.length}` : "";
    });
  }

  for (const chip of document.querySelectorAll("button[data-words]")) {
    const box = document.querySelector(`input[data-filters="${chip.dataset.of}"]`);
    const table = document.getElementById(chip.dataset.of);
    chip.addEventListener("click", () => {
      const on = chip.getAttribute("aria-pressed") !== "true";
      for (const other of document.querySelectorAll(`button[data-of="${chip.dataset.of}"]`)) other.setAttribute("aria-pressed", "false");
      chip.setAttribute("aria-pressed", String(on));
      if (!box || !table) return;
      box.value = "";
      box.dispatchEvent(new Event("input"));
      for (const row of table.tBodies[0].rows) row.hidden = on && !row.classList.contains(chip.classList[0]);
    });
  }

  const links = new Map();
  for (const link of document.querySelectorAll(".side a, .menu nav a")) {
    const id = link.hash.slice(1);
    links.set(id, [...(links.get(id) ?? []), link]);
    link.addEventListener("click", () => document.querySelector(".menu").removeAttribute("open"));
  }
  const here = document.querySelector(".menu .here");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, found] of links) {
        const current = id === entry.target.id;
        for (const link of found) current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
        if (current) here.textContent = found[0].textContent;
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);

  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let box = target; box; box = box.parentElement) {
      if (box instanceof HTMLDetailsElement) box.open = true;
    }
    target.hidden = false;
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
