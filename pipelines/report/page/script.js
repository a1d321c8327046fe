"use strict";
(() => {
  const root = document.documentElement, all = (what, where = document) => [...where.querySelectorAll(what)];
  const data = JSON.parse(document.getElementById("data").textContent);
  root.classList.add("js");

  // light and dark: as the system has it until the button is pressed
  const button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const told = () => { button.textContent = isDark() ? "light" : "dark"; button.setAttribute("aria-label", "switch to " + button.textContent + " colours"); };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; told(); });
  system.addEventListener("change", told);
  told();

  // tables: a press on a header sorts, numbers the largest first
  const value = (row, column) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1; // undefined always last
    return Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  };
  const turn = (header) => {
    const before = header.getAttribute("aria-sort"), first = header.classList.contains("num") ? "descending" : "ascending";
    const now = before ? (before === "ascending" ? "descending" : "ascending") : first;
    all("th", header.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", now);
    return now === "ascending" ? 1 : -1;
  };
  const ordered = (items, at, sign) => [...items].sort((a, b) => { const x = at(a), y = at(b); return x === "" || y === "" ? compare(x, y) : sign * compare(x, y); });
  all("table.sortable[id]").forEach((table) => all("thead th button", table).forEach((press) => press.addEventListener("click", () => {
    const header = press.parentNode, sign = turn(header), column = header.cellIndex;
    table.tBodies[0].append(...ordered(table.tBodies[0].rows, (row) => value(row, column), sign));
  })));

  all("[data-filter]").forEach((input) => input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/), rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    rows.forEach((row) => { const text = row.textContent.toLowerCase(); row.hidden = !words.every((word) => text.includes(word)); });
    all(`[data-count="${input.dataset.filter}"]`).forEach((count) => { count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`; });
  }));

  all("[data-pick]").forEach((select) => select.addEventListener("change", () => {
    all(".picked", document.getElementById(select.dataset.pick)).forEach((line) => line.classList.remove("picked"));
    if (select.value) document.getElementById(select.value).classList.add("picked");
  }));

  all("[data-copy]").forEach((press) => press.addEventListener("click", () => {
    const text = press.previousElementSibling, range = document.createRange();
    range.selectNodeContents(text);
    getSelection().removeAllRanges();
    getSelection().addRange(range); // so that it can be copied by hand where the browser allows no more
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(() => { press.textContent = "copied"; }, () => { press.textContent = "selected"; });
    else press.textContent = "selected";
  }));

  const element = (name, text, into) => { const made = document.createElement(name); made.textContent = text; into.append(made); return made; };
  const link = (row, into) => {
    if (!row[5]) return element("span", row[0], into);
    const a = element("a", row[0], into);
    a.href = "#" + row[5];
    return a;
  };

  // the confusion matrix: one stop of the tab key, arrows inside, a press lists the videos
  all("[data-matrix]").forEach((table) => {
    const key = table.dataset.matrix, cells = all("button", table), panel = document.querySelector(`[data-panel="${key}"]`);
    const { classes, rows } = data[key];
    cells.forEach((cell, n) => { cell.tabIndex = n ? -1 : 0; });
    const go = (cell) => { cells.forEach((other) => { other.tabIndex = other === cell ? 0 : -1; }); cell.focus(); };
    const choose = (cell) => {
      cells.forEach((other) => other.setAttribute("aria-pressed", String(other === cell)));
      const t = Number(cell.dataset.t), s = Number(cell.dataset.s), found = rows.filter((row) => row[1][0] === t && row[2] === s);
      panel.replaceChildren();
      const count = Number(cell.textContent);
      element("h4", `true ${classes[t]}, said ${classes[s]}: ${count} ${count === 1 ? "video" : "videos"}`, panel);
      if (found.length < count) element("p", `${found.length} of them are listed in this page.`, panel);
      const list = element("ul", "", panel);
      found.forEach((row) => { const item = element("li", "", list); link(row, item); element("span", ` (${row[3].toFixed(3)})`, item); });
    };
    table.addEventListener("click", (event) => { const cell = event.target.closest("button"); if (cell) { go(cell); choose(cell); } });
    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("button"), step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!cell || !step) return;
      event.preventDefault();
      const t = Number(cell.dataset.t), s = Number(cell.dataset.s), along = (c) => step[0] * (c.dataset.t - t) + step[1] * (c.dataset.s - s);
      const across = (c) => Math.abs(step[1] * (c.dataset.t - t)) + Math.abs(step[0] * (c.dataset.s - s));
      const next = cells.filter((c) => along(c) > 0).sort((a, b) => across(a) - across(b) || along(a) - along(b))[0];
      if (next) go(next);
    });
  });

  // attention: of which stream, how strong, which videos
  all("[data-heat]").forEach((set) => set.addEventListener("change", () => {
    const chosen = set.querySelector("input:checked").value;
    all("img.heat", set.closest("section")).forEach((heat) => { heat.hidden = heat.dataset.stream !== chosen; });
  }));
  all("[data-opacity]").forEach((input) => input.addEventListener("input", () => input.closest("section").style.setProperty("--heat-opacity", input.value)));
  all("[data-kinds]").forEach((set) => set.addEventListener("change", () => all("input", set).forEach((input) => {
    all(`[data-kind="${input.value}"]`, set.closest("section")).forEach((card) => { card.hidden = !input.checked; });
  })));

  // all videos: filtered, sorted, a hundred at a time
  all("[data-videos]").forEach((box) => {
    const { classes, rows } = data[box.dataset.videos], body = box.querySelector("tbody"), more = box.querySelector("[data-more]");
    const by = Object.fromEntries(all("[data-by]", box).map((input) => [input.dataset.by, input]));
    const at = [(row) => row[0], (row) => row[1].map((n) => classes[n]).join(", "), (row) => classes[row[2]], (row) => String(row[3]), (row) => (row[1].length ? String(row[4]) : "")];
    let sorted = rows, most = 100;
    const draw = () => {
      const found = sorted.filter((row) => row[0].toLowerCase().includes(by.id.value.toLowerCase())
        && (!by.true.value || row[1].includes(Number(by.true.value))) && (!by.said.value || row[2] === Number(by.said.value))
        && (!by.right.value || (by.right.value === "right") === row[1].includes(row[2])));
      body.replaceChildren(...found.slice(0, most).map((row) => {
        const line = document.createElement("tr"), first = element("th", "", line), right = row[1].includes(row[2]);
        first.scope = "row";
        link(row, first);
        element("td", at[1](row) || "no label", line);
        element("td", `${right ? "✓" : "✗"} ${classes[row[2]]}`, line);
        [row[3].toFixed(3), row[1].length ? row[4].toFixed(3) : "–"].forEach((text) => { element("td", text, line).className = "num"; });
        return line;
      }));
      box.querySelector("[data-shown]").textContent = `${found.length} of ${rows.length} videos`;
      more.hidden = found.length <= most;
    };
    Object.values(by).forEach((input) => input.addEventListener("input", () => { most = 100; draw(); }));
    more.addEventListener("click", () => { most += 100; draw(); });
    all("thead th button", box).forEach((press) => press.addEventListener("click", () => {
      const header = press.parentNode, sign = turn(header);
      sorted = ordered(rows, at[header.cellIndex], sign);
      draw();
    }));
    draw();
  });

  // on paper everything is open
  let closed = [];
  addEventListener("beforeprint", () => { closed = all("details:not([open])").filter((part) => !part.closest(".plot")); closed.forEach((part) => { part.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
