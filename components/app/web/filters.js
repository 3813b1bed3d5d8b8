// The filter panel: shows available and chosen filter values, and reports changes.

import { countFilters, withoutFilters } from "./state.js";
import { button, byId, day, element, whole } from "./words.js";

const LONG_LIST = 200; // longer lists are cut
// Ids of fields and names of radio buttons -> fields of the state
const FIELDS = [["since", "since"], ["until", "until"], ["name", "name"], ["min_px", "minPx"], ["min_score", "minScore"]];
const RADIOS = [["orientation", "orientation"], ["has_gps", "hasGps"]];
const SHAPES = { landscape: "wide", portrait: "tall", square: "square" };

export class FilterPanel {
  // change(part) is called with the fields of the state that were changed
  constructor(change) {
    this.change = change;
    this.facets = { folders: [], cameras: [] };
    this.state = null;
    this.open = new Set();
    for (const [id, field] of FIELDS) {
      byId(id).addEventListener("change", (event) => {
        if (event.target.validity.valid) change({ [field]: event.target.value }); // ignores incomplete dates
      });
    }
    for (const [name, field] of RADIOS) {
      radios(name).forEach((radio) => radio.addEventListener("change", () => change({ [field]: radio.value })));
    }
    byId("duplicates").addEventListener("change", (event) => change({ duplicates: event.target.checked ? "show" : "fold" }));
    byId("clear-filters").addEventListener("click", () => change(withoutFilters(this.state)));
  }

  setFacets(facets) {
    this.facets = facets;
    const span = facets.first_day ? `Images from ${day(facets.first_day)} to ${day(facets.last_day)}` : "";
    for (const id of ["since", "until"]) byId(id).title = span;
    if (this.state) this.show(this.state);
  }

  show(state) {
    this.state = state;
    for (const [id, field] of FIELDS) byId(id).value = state[field];
    for (const [name, field] of RADIOS) radios(name).forEach((radio) => (radio.checked = radio.value === state[field]));
    byId("duplicates").checked = state.duplicates === "show";
    this.#showFolders();
    this.#showCameras();
    const count = countFilters(state);
    byId("clear-filters").hidden = count === 0;
    byId("filter-count").hidden = count === 0;
    byId("filter-count").textContent = count;
    byId("toggle-filters").setAttribute("aria-label", count ? `Filters, ${count} active` : "Filters");
    this.#showChips();
  }

  #showFolders() {
    const roots = treeOf(this.facets.folders.slice(0, LONG_LIST));
    byId("folder-field").hidden = roots.length === 0;
    keepingFocus(byId("folders"), () => {
      byId("folders").replaceChildren(...roots.map((node) => this.#folder(node, false)));
      const left = this.facets.folders.length - LONG_LIST;
      if (left > 0) byId("folders").append(element("li", { className: "hint" }, `and ${whole(left)} more ${left === 1 ? "folder" : "folders"}`));
    });
  }

  #folder(node, inherited) {
    const chosen = this.state.folders.includes(node.label);
    const row = element("div", { className: "tree-row" });
    const item = element("li", {}, row);
    const open = this.open.has(node.label) || this.state.folders.some((label) => label.startsWith(`${node.label}/`));
    if (node.children.length) {
      const labels = { "aria-expanded": String(open), "aria-label": `Subfolders of ${node.name}`, "data-key": `open ${node.label}` };
      row.append(button("", { className: "twist", ...labels }, () => {
        this.open[open ? "delete" : "add"](node.label);
        this.#showFolders();
      }));
    }
    row.append(choice(node, chosen || inherited, inherited, (checked) => {
      // choosing a folder includes its subfolders
      const kept = this.state.folders.filter((label) => label !== node.label && !label.startsWith(`${node.label}/`));
      this.change({ folders: checked ? [...kept, node.label] : kept });
    }));
    if (open && node.children.length) {
      const below = node.children.map((child) => this.#folder(child, chosen || inherited));
      item.append(element("ul", { className: "tree" }, ...below));
    }
    return item;
  }

  #showCameras() {
    byId("camera-field").hidden = this.facets.cameras.length === 0;
    const rows = this.facets.cameras.map(({ value, count }) => {
      const row = choice({ label: value, name: value, count }, this.state.cameras.includes(value), false, (checked) => {
        const kept = this.state.cameras.filter((camera) => camera !== value);
        this.change({ cameras: checked ? [...kept, value] : kept });
      });
      return element("li", {}, row);
    });
    keepingFocus(byId("cameras"), () => byId("cameras").replaceChildren(...rows));
  }

  #showChips() {
    const { state } = this;
    const span = [state.since && `from ${day(state.since)}`, state.until && `to ${day(state.until)}`].filter(Boolean);
    const chips = [
      ...state.folders.map((label) => [label, { folders: state.folders.filter((other) => other !== label) }]),
      ...(span.length ? [[span.join(" "), { since: "", until: "" }]] : []),
      ...(state.name ? [[`file name: ${state.name}`, { name: "" }]] : []),
      ...state.cameras.map((name) => [name, { cameras: state.cameras.filter((other) => other !== name) }]),
      ...(state.orientation ? [[SHAPES[state.orientation], { orientation: "" }]] : []),
      ...(state.hasGps ? [[state.hasGps === "true" ? "location known" : "location unknown", { hasGps: "" }]] : []),
      ...(state.minPx ? [[`at least ${whole(state.minPx)} px`, { minPx: "" }]] : []),
      ...(state.minScore ? [[`score at least ${state.minScore}`, { minScore: "" }]] : []),
    ];
    byId("active").hidden = chips.length === 0;
    byId("active").replaceChildren(
      ...chips.map(([words, part]) => {
        const properties = { className: "chip removable", "aria-label": `Remove filter: ${words}` };
        return element("li", {}, button(words, properties, () => this.change(part)));
      }),
    );
  }
}

const radios = (name) => document.querySelectorAll(`input[name="${name}"]`);

function choice(node, checked, disabled, change) {
  const box = element("input", { type: "checkbox", checked, disabled });
  box.dataset.key = `choose ${node.label}`;
  box.addEventListener("change", () => change(box.checked));
  const name = element("span", { className: "choice-name", title: node.label }, node.name);
  return element("label", { className: "check" }, box, name, element("span", { className: "number" }, whole(node.count)));
}

// [{value: "a/b", count}] -> tree of {label, name, count including subfolders, children}; adds missing parents.
function treeOf(folders) {
  const nodes = new Map();
  const roots = [];
  const nodeOf = (label) => {
    if (nodes.has(label)) return nodes.get(label);
    const cut = label.lastIndexOf("/");
    const node = { label, name: label.slice(cut + 1), count: 0, children: [] };
    nodes.set(label, node);
    (cut < 0 ? roots : nodeOf(label.slice(0, cut)).children).push(node);
    return node;
  };
  for (const { value, count } of folders) {
    nodeOf(value);
    for (let label = value; label; label = label.slice(0, Math.max(0, label.lastIndexOf("/")))) {
      nodeOf(label).count += count;
    }
  }
  return roots;
}

// Redraws a list and keeps the keyboard focus.
function keepingFocus(list, draw) {
  const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : "";
  draw();
  if (key) [...list.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus();
}
