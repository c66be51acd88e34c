"use strict";
// Without this script the page is whole; with it, tables are sorted and filtered, and colours are switched.
const tables = [...document.querySelectorAll("table.data")];
const inOrder = new Intl.Collator("en", { numeric: true }).compare;

/** What a row is sorted by in a column: a number, a text, or null where there is nothing. */
function value(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.classList.contains("empty") ? null : cell.textContent.trim();
}

/** Numbers first, then texts, then what has no value, in both directions. */
function compare(a, b, direction) {
  const rank = (x) => (x === null ? 2 : typeof x === "number" ? 0 : 1);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (a === null) return 0;
  return direction * (typeof a === "number" ? a - b : inOrder(a, b));
}

function sort(table, header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(value(a, header.cellIndex), value(b, header.cellIndex), ascending ? 1 : -1));
  table.tBodies[0].append(...rows);
}

for (const table of tables) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header));
    header.append(button);
  }
}

const filter = document.getElementById("filter");
const count = document.getElementById("count");
const texts = new Map(tables.flatMap((table) => [...table.tBodies[0].rows]).map((row) => [row, row.textContent.toLowerCase()]));

/** Show the rows that have every word of the filter. */
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [row, text] of texts) {
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  count.textContent = words.length ? `${shown} of ${texts.size} rows` : `${texts.size} rows`;
}
filter.addEventListener("input", show);
show();

const theme = document.getElementById("theme");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const name = () => (theme.textContent = isDark() ? "Light colours" : "Dark colours");
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  name();
});
dark.addEventListener("change", name);
name();
theme.hidden = document.getElementById("tools").hidden = false;
