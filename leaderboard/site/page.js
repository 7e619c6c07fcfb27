// One section is shown at a time, the one that the address names; its charts are drawn when they are first seen.
const source = document.querySelector("#table-library").textContent;
const library = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
const {jQuery} = await import(library);
URL.revokeObjectURL(library);

const published = document.querySelector("#show-published");
const views = [];
async function draw(figure) {
  const script = figure.querySelector("script");
  if (!script || !figure.offsetParent) return;
  const chart = JSON.parse(script.text);
  script.remove();
  const place = figure.appendChild(document.createElement("div"));
  // An interpreter runs the chart's expressions: the page's security policy forbids code made of text.
  const options = {renderer: "svg", actions: false, ast: true, logLevel: 1};
  const {view} = await vegaEmbed(place, chart, options);
  if (chart.params?.some(parameter => parameter.name === "published")) {
    views.push(view);
    await showPublished(view);
  }
}
const showPublished = view => view.signal("published", published?.checked ?? false).runAsync();
const drawShown = () => document.querySelectorAll(".chart").forEach(draw);
published?.addEventListener("change", () => views.forEach(showPublished));

const sections = [...document.querySelectorAll("main > section")];
function named() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }  // a broken address names nothing
}
function go() {
  const name = named();
  const shown = sections.find(section => section.id === name) ?? sections[0];
  sections.forEach(section => section.hidden = section !== shown);
  document.title = shown.dataset.title;
  scrollTo(0, 0);
  drawShown();
}

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
let dark = system.matches;
const paint = () => {
  root.style.colorScheme = dark ? "dark" : "light";
  root.classList.toggle("dark", dark);
};
system.addEventListener("change", () => { dark = system.matches; paint(); });
document.querySelector("#theme").addEventListener("click", () => { dark = !dark; paint(); });
paint();

const csv = {extend: "csv", text: "CSV", filename: "snn-zoo", exportOptions: {columns: ":visible"}};
const words = {search: "", searchPlaceholder: "Search", searchBuilder: {button: "Filter", title: "Filter"}};
const layout = buttons => ({topStart: {buttons}, topEnd: "search", bottomStart: null, bottomEnd: null});

const networks = document.querySelector("#networks");
if (networks) {
  const extra = [...networks.tHead.rows[0].cells].map(head => "extra" in head.dataset);
  const chosen = extra.map(hidden => !hidden);
  const columns = {extend: "colvis", text: "Columns", columns: ":not(:first-child)", background: false};
  const table = jQuery(networks).DataTable({
    paging: false, info: false, autoWidth: false, order: [], language: words, layout: layout([columns, "searchBuilder", csv]),
    columnDefs: [{targets: "number", orderSequence: ["desc", "asc"]}],
  });
  const [dataset, tier] = ["#dataset", "#tier"].map(id => document.querySelector(id));
  const place = table.column("dataset:name").index();
  let choosing = true;
  table.on("column-visibility.dt", (event, settings, column, visible) => { if (choosing) chosen[column] = visible; });
  // A column in which no row that is shown has a value is not shown, whatever was chosen.
  function fit() {
    choosing = false;
    const shown = table.rows({search: "applied"}).any();
    for (const column of table.columns().indexes().toArray().slice(1)) {
      const cells = table.column(column, {search: "applied"}).nodes().toArray();
      const known = !shown || cells.some(cell => cell.dataset.order !== "");
      table.column(column).visible(known && (column === place && !dataset.value || chosen[column]), false);
    }
    choosing = true;
  }
  function filterRows() {
    table.search.fixed("chosen", (text, row, index) => {
      const of = table.row(index).node().dataset;
      return (!dataset.value || of.dataset === dataset.value) && (!tier?.value || of.tier === tier.value);
    }).draw();
    document.querySelectorAll(".plots[data-dataset]").forEach(
      plots => plots.hidden = dataset.value !== "" && plots.dataset.dataset !== dataset.value);
  }
  table.on("draw", fit);
  document.querySelector("#filters").addEventListener("change", () => { filterRows(); drawShown(); });
  filterRows();
}
if (document.querySelector("#claims")) {
  jQuery("#claims").DataTable({paging: false, info: false, order: [], autoWidth: false, language: words, layout: layout([csv])});
}
addEventListener("hashchange", go);
go();
root.dataset.ready = "";
