"use strict";
(function () {
  const all = (css, root) => Array.from((root || document).querySelectorAll(css));
  const byId = (id) => document.getElementById(id);

  // Language: every label carries its Chinese twin; the English text is kept when it is replaced.
  const speak = (lang) => {
    document.documentElement.lang = lang;
    all("[data-zh]").forEach((el) => {
      if (!el.dataset.en) el.dataset.en = el.textContent;
      el.textContent = lang === "zh" ? el.dataset.zh : el.dataset.en;
    });
    byId("lang").textContent = lang === "zh" ? "English" : "中文";
  };
  byId("lang").onclick = () => speak(document.documentElement.lang === "zh" ? "en" : "zh");
  if ((navigator.language || "").startsWith("zh")) speak("zh");
  byId("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };

  // Filters of the tensor tables.
  const rows = all(".tensors tbody tr");
  const filter = () => {
    const off = (key) => new Set(all(`#filters button[data-${key}]:not(.on)`).map((b) => b.dataset[key]));
    const stages = off("stage"), matches = off("match");
    const word = byId("find").value.toLowerCase();
    let left = 0;
    rows.forEach((row) => {
      const show = !(byId("onlybad").checked && row.dataset.bad === "0") && !stages.has(row.dataset.s) &&
        !matches.has(row.dataset.m) && (!word || row.cells[1].textContent.toLowerCase().includes(word));
      row.hidden = !show;
      left += show;
    });
    byId("left").textContent = `${left} / ${rows.length}`;
  };
  if (byId("filters")) {
    all("#filters button").forEach((b) => { b.onclick = () => { b.classList.toggle("on"); filter(); }; });
    byId("onlybad").onchange = filter;
    byId("find").oninput = filter;
    filter();
  }

  // A link to a row must show it, whatever is folded or filtered away.
  const reveal = () => {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    target.hidden = false;
    for (let el = target; el; el = el.parentElement) if (el.tagName === "DETAILS") el.open = true;
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // Sorting by a column: numbers as numbers, dashes last.
  const value = (cell) => {
    const text = cell.textContent.trim().replace(/,/g, "");
    const number = Number(text === "∞" ? "Infinity" : text);
    return text === "NaN" ? Infinity : text !== "" && !isNaN(number) ? number : null;
  };
  all(".tensors thead th").forEach((th) => {
    th.onclick = () => {
      const body = th.closest("table").tBodies[0], at = th.cellIndex, numeric = th.classList.contains("n");
      const down = th.dataset.sort !== "down";
      all("th", th.parentElement).forEach((other) => delete other.dataset.sort);
      th.dataset.sort = down ? "down" : "up";
      const key = (row) => (numeric ? value(row.cells[at]) : row.cells[at].textContent);
      const keyed = Array.from(body.rows).map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => (a === null) - (b === null) || (numeric ? (a < b) - (a > b) : (a > b) - (a < b)) * (down ? 1 : -1));
      keyed.forEach(([, row]) => body.append(row));
    };
  });

  all("[data-tree]").forEach((b) => {
    b.onclick = () => all("#tree details").forEach((el) => { el.open = b.dataset.tree === "open"; });
  });
  if (byId("treebad")) byId("treebad").onchange = (e) => byId("tree").classList.toggle("onlybad", e.target.checked);

  if (byId("score")) byId("score").oninput = (e) => {
    byId("scoreout").textContent = e.target.value;
    all(".box:not(.odd)").forEach((g) => g.toggleAttribute("hidden", !(Number(g.dataset.score) >= Number(e.target.value))));
  };

  all(".copy").forEach((b) => {
    b.onclick = () => {
      const pre = b.parentElement.nextElementSibling;
      const range = document.createRange();
      range.selectNodeContents(pre);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      // Pages opened from disk may not have the clipboard interface; the old command still works there.
      if (navigator.clipboard) navigator.clipboard.writeText(pre.textContent).catch(() => document.execCommand("copy"));
      else document.execCommand("copy");
    };
  });
})();
