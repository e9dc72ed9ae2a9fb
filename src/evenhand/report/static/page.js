// The report page: sorts and filters its tables, draws its charts, and opens the items that a method changed.
// All text reaches the page as text (textContent), never as markup. Nothing is ever requested.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const PAGE_ROWS = 10;

/** The text behind an id, or its JSON: base64 of gzip. */
async function unpacked(id, asJson = false) {
  const packed = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(stream).text();
  return asJson ? JSON.parse(text) : text;
}

/** Runs a packed library. */
async function library(id) {
  const url = URL.createObjectURL(new Blob([await unpacked(id)], { type: "text/javascript" }));
  const script = document.createElement("script");
  const ready = new Promise((done, failed) => {
    script.onload = done;
    script.onerror = () => failed(new Error(`${id} could not be loaded`));
  });
  script.src = url;
  document.head.append(script);
  await ready;
  URL.revokeObjectURL(url);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// ------------------------------------------------------------------------------------------------ light and dark

function themes() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const named = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => { button.textContent = named() === "dark" ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = named() === "dark" ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  show();
}

// -------------------------------------------------------------------------------------------------- the leaderboard

const LANGUAGE = {
  emptyTable: "No rows.",
  info: "_START_ to _END_ of _TOTAL_",
  infoEmpty: "none",
  infoFiltered: "(of _MAX_)",
  lengthMenu: "_MENU_ rows",
  search: "Search:",
  zeroRecords: "Nothing fits.",
};

function leaderboard() {
  const table = document.getElementById("leaderboard");
  if (!table) return;
  new DataTable(table, {
    autoWidth: false,
    info: false,
    language: { ...LANGUAGE, search: "Filter methods:" },
    layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
    order: [],
    paging: false,
  });
}

// ------------------------------------------------------------------------------------------------------------ charts

async function charts() {
  for (const [id, packed] of Object.entries(facts.charts)) {
    const place = document.getElementById(id);
    const spec = await unpacked(packed, true);
    place.replaceChildren();
    await vegaEmbed(place, spec, {
      actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
      ast: true, // expressions are interpreted: the page allows no code made from text
      downloadFileName: `evenhand-${id}`,
      renderer: "svg",
    });
    place.querySelector("svg.marks")?.setAttribute("aria-label", place.dataset.label);
  }
}

// ----------------------------------------------------------------------------------------------------- changed items

const field = (name) => document.getElementById(`changes-${name}`);
const loaded = new Map();
let grid = null;
let rows = [];

/** What is kept of one method on one benchmark; unpacked once. */
async function shelf(id) {
  if (!loaded.has(id)) loaded.set(id, unpacked(id, true));
  return loaded.get(id);
}

function options(select, values, all) {
  const chosen = select.value;
  select.replaceChildren(...(all ? [element("option", { value: "" }, all)] : []));
  for (const [value, text] of values) select.append(element("option", { value }, text));
  if (values.some(([value]) => value === chosen)) select.value = chosen;
}

function current() {
  const whose = facts.changes.filter((c) => c.method === field("method").value && c.model === field("model").value);
  return whose.find((c) => c.benchmark === field("benchmark").value) || whose[0] || null;
}

const distinct = (values) => [...new Set(values)].map((value) => [value, value]);

function choices() {
  const model = field("model");
  options(model, distinct(facts.changes.map((c) => c.model)));
  const ofModel = facts.changes.filter((c) => c.model === model.value);
  options(field("method"), distinct(ofModel.map((c) => c.method)));
  const ofMethod = ofModel.filter((c) => c.method === field("method").value);
  options(field("benchmark"), distinct(ofMethod.map((c) => c.benchmark)));
  for (const name of ["model", "benchmark"]) {
    field(name).closest("label").hidden = field(name).options.length < 2;
  }
}

function dialogueText(dialogue) {
  return dialogue ? dialogue.turns.map((turn) => turn[1]).join("\n") : "";
}

async function showCell() {
  const cell = current();
  if (!cell) return;
  const [own, before] = await Promise.all([shelf(cell.shelf), shelf(cell.before)]);
  if (cell !== current()) return; // another one was chosen meanwhile
  rows = own.rows.map((row) => ({ ...row, dialogues: [before[row.item] ?? null, row.said ?? null] }));
  const counts = facts.directions.map((name, n) => [String(n), `${name} (${cell.counts[n].toLocaleString("en")})`]);
  options(field("direction"), counts.filter((_, n) => cell.counts[n]), "all directions");
  options(field("axis"), distinct(rows.flatMap((row) => row.groups)).sort(), "all axes");
  options(field("part"), distinct(rows.map((row) => row.part)).filter(([part]) => part).sort(), "all parts");
  field("part").closest("label").hidden = field("part").options.length < 3;
  field("count").textContent = cell.told;
  fill();
}

function shown() {
  const [direction, axis, part] = ["direction", "axis", "part"].map((name) => field(name).value);
  return rows.filter(
    (row) =>
      (!direction || String(row.direction) === direction) &&
      (!axis || row.groups.includes(axis)) &&
      (!part || row.part === part),
  );
}

function answer(row, side) {
  const text = row[side ? "after" : "before"];
  const p = probability(row, side);
  return p === null ? text : `${text} (${p.toFixed(2)})`;
}

/** Probability of the option that was chosen on a side. */
function probability(row, side) {
  const [chosen, all] = [row.chosen[side], row.probabilities[side]];
  return chosen === null || !all ? null : all[chosen];
}

/** By how much the probability of the former answer has fallen. */
function move(row) {
  const [chosen, [before, after]] = [row.chosen[0], row.probabilities];
  return chosen === null || !before || !after ? null : before[chosen] - after[chosen];
}

const number = (value) => (value === null ? "–" : value.toFixed(3));
const whole = (render) => (data, type, row) => cellText(render(row), type);
const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** A text for the table: DataTables reads what it searches as HTML where there is an "&" in it. */
function cellText(text, type) {
  if (type === "display") return escaped(text);
  return type === "filter" ? text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`) : text;
}

function openButton(row) {
  return `<button type="button" class="open" aria-expanded="false">${escaped(facts.directions[row.direction])}</button>`;
}

function fill() {
  if (grid) {
    grid.clear().rows.add(shown()).draw();
    return;
  }
  grid = new DataTable("#changes-table", {
    autoWidth: false,
    columns: [
      { data: null, render: (_, type, row) => (type === "display" ? openButton(row) : row.direction) },
      { data: null, className: "item", render: whole((row) => row.item) },
      { data: null, className: "axis", render: whole((row) => row.groups.join(", ")) },
      { data: null, className: "part", render: whole((row) => row.part) },
      { data: null, render: whole((row) => answer(row, 0)) },
      { data: null, render: whole((row) => answer(row, 1)) },
      {
        data: null,
        className: "number",
        type: "num",
        render: (_, type, row) => (type === "display" ? number(move(row)) : move(row) ?? -2),
      },
      {
        data: null, // searched, never shown
        visible: false,
        render: (_, type, row) => (type === "display" ? "" : cellText(row.dialogues.map(dialogueText).join("\n"), type)),
      },
    ],
    data: shown(),
    deferRender: true,
    language: { ...LANGUAGE, search: "Search items and dialogues:" },
    layout: { topStart: "search", topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    order: [[0, "asc"]],
    pageLength: PAGE_ROWS,
  });
  document.getElementById("changes-table").addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (button) toggle(button);
  });
}

function toggle(button) {
  const row = grid.row(button.closest("tr"));
  const open = row.child.isShown();
  if (open) row.child.hide();
  else row.child(detail(row.data()), "detail").show();
  button.setAttribute("aria-expanded", String(!open));
}

function detail(row) {
  const cell = current();
  const sides = element("div", { class: "sides" });
  [cell.against, cell.method].forEach((name, side) => sides.append(said(row, name, side)));
  return sides;
}

function said(row, name, side) {
  const part = element("section", { "aria-label": `${side ? "after" : "before"}: ${name}` });
  part.append(element("h4", {}, `${side ? "After" : "Before"}: ${name}`));
  part.append(probabilities(row, side));
  const dialogue = row.dialogues[side];
  if (!dialogue) {
    part.append(element("p", { class: "means" }, current().withheld || "The dialogue is not kept in this page."));
    return part;
  }
  if (dialogue.note) part.append(element("p", { class: "means" }, dialogue.note));
  for (const [role, text] of dialogue.turns) {
    part.append(element("h5", {}, role), element("pre", { tabindex: "0" }, text));
  }
  part.append(element("p", {}, `→ ${dialogue.outcome}`));
  return part;
}

/** The options with their probabilities; the one that was chosen is marked. */
function probabilities(row, side) {
  const all = row.probabilities[side];
  if (!all) return element("p", {}, `Answer: ${row[side ? "after" : "before"] || "none"}`);
  const body = element("tbody");
  all.forEach((p, n) => {
    const chosen = n === row.chosen[side];
    const bar = element("meter", { min: "0", max: "1", value: String(p), "aria-hidden": "true" });
    const name = row.options?.[n] ?? `option ${n}`;
    const label = element("th", { scope: "row" }, chosen ? `✓ ${name}` : name);
    body.append(element("tr", chosen ? { class: "chosen" } : {}, label, element("td", {}, number(p)), element("td", {}, bar)));
  });
  const caption = element("caption", {}, "Probability of every option (✓ chosen)");
  return element("table", { class: "options" }, caption, body);
}

async function changes() {
  if (!facts.changes.length) return;
  choices();
  for (const name of ["model", "method", "benchmark"]) {
    field(name).addEventListener("change", async () => {
      choices();
      await showCell();
    });
  }
  for (const name of ["direction", "axis", "part"]) field(name).addEventListener("change", fill);
  for (const link of document.querySelectorAll("a[data-method]")) {
    link.addEventListener("click", () => follow(link.dataset));
  }
  await showCell();
  document.getElementById("changes-all").hidden = false;
}

/** Shows what a link elsewhere on the page is about. */
async function follow(wanted) {
  field("model").value = wanted.model;
  choices();
  field("method").value = wanted.method;
  choices();
  if (wanted.benchmark) field("benchmark").value = wanted.benchmark;
  await showCell();
  const direction = facts.directions.indexOf(wanted.direction);
  field("direction").value = current()?.counts[direction] ? String(direction) : "";
  for (const name of ["axis", "part"]) {
    field(name).value = wanted[name] || "";
    if (field(name).selectedIndex < 0) field(name).value = "";
  }
  grid.search("");
  fill();
}

// ------------------------------------------------------------------------------------------------------------- start

(async () => {
  const page = document.documentElement;
  try {
    themes();
    await library("tables-library");
    leaderboard();
    await changes();
    page.dataset.ready = "tables";
    await library("charts-library");
    await charts();
    page.dataset.ready = "all";
  } catch (error) {
    page.dataset.ready = "failed";
    const told = `Sorting, filtering and charts do not work in this browser (${error.message}). All tables are complete.`;
    document.querySelector("main").prepend(element("p", { role: "alert", class: "missing" }, told));
    throw error;
  }
})();
