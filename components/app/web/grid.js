// The results as tiles in rows, with keyboard navigation. Only tiles near the visible part exist as elements.

import { reasonOfMissing, thumbnailUrl } from "./api.js";
import { boxesOf, extendRows, neighbour, rowAt, rowOf } from "./layout.js";
import { TILE_PX } from "./sizes.js";
import { addressOf } from "./state.js";
import { byId, element, shortDay } from "./words.js";

const BLANKS = [1.5, 1.33, 0.75, 1.5, 1, 1.33, 1.5, 0.75]; // shapes of tiles before the first answer

export class Grid {
  // open(index): called for the chosen image; selection: of images, see selection.js
  constructor(list, { open, selection }) {
    this.list = list;
    this.open = open;
    this.selection = selection;
    this.cells = new Map(); // elements by index
    this.stop = 0; // the one image that Tab reaches; arrow keys move it
    this.#reset(null);
    list.addEventListener("click", (event) => {
      if (event.target.matches(".pick")) this.selection.toggle(this.#hit(indexOf(event.target)));
      const tile = event.target.closest(".tile");
      if (!tile || event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser opens the link elsewhere
      event.preventDefault();
      this.open(indexOf(tile));
    });
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("focusin", ({ target }) => target.matches(".tile") && this.#stopAt(indexOf(target)));
    addEventListener("scroll", () => this.#drawSoon(), { passive: true });
    addEventListener("resize", () => this.#drawSoon());
    new ResizeObserver(() => this.#widened()).observe(list);
  }

  get count() {
    return this.hits?.count ?? 0;
  }

  // What is known of the focused image, at least its id; null if none is focused.
  focused() {
    const tile = document.activeElement?.closest(".tile");
    return tile && this.list.contains(tile) ? this.#hit(indexOf(tile)) : null;
  }

  focus(index) {
    if (index < 0 || index >= this.count) return;
    this.#stopAt(index);
    this.#draw(); // creates the tile, wherever it is
    const tile = this.cells.get(index).querySelector(".tile");
    tile.focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest" });
  }

  // hits: a list that may grow, see extended()
  show(hits) {
    this.#reset(hits);
    this.#layOut();
  }

  clear() {
    this.#reset(null);
  }

  // The list shown now has grown.
  extended() {
    extendRows(this.rows, this.hits.ratios, this.hits.headings, this.style);
    this.#resize();
  }

  skeleton(count) {
    this.#reset(null);
    const ratios = Array.from({ length: count }, (_, position) => BLANKS[position % BLANKS.length]);
    const style = styleOf(this.list);
    const rows = extendRows([], ratios, new Map(), style);
    this.list.style.height = `${rows.at(-1).bottom}px`;
    for (const row of rows) {
      for (const box of boxesOf(row, ratios, style)) this.list.append(placed(blankCell(), row, box));
    }
  }

  // Marks what is selected now.
  showSelection() {
    this.list.classList.toggle("selecting", this.selection.hits.size > 0);
    for (const [index, cell] of this.cells) mark(cell, this.selection.has(this.hits.ids[index]));
  }

  #hit(index) {
    return this.hits.at(index) ?? { id: this.hits.ids[index], name: this.hits.ids[index] };
  }

  #reset(hits) {
    for (const cell of this.cells.values()) remove(cell);
    this.cells.clear();
    this.list.replaceChildren();
    this.list.style.height = "";
    this.hits = hits;
    this.stop = 0;
    this.rows = [];
  }

  #widened() {
    if (this.hits && this.style?.width !== this.list.clientWidth) this.#layOut();
  }

  #layOut() {
    this.style = styleOf(this.list);
    this.rows = extendRows([], this.hits.ratios, this.hits.headings, this.style);
    this.#resize();
    this.showSelection();
  }

  #resize() {
    this.list.style.height = this.rows.length ? `${this.rows.at(-1).bottom}px` : "";
    for (const row of this.rows.filter(({ heading }) => heading !== null)) this.#head(row);
    this.#draw({ again: true });
  }

  // Headings are few, so all of them exist.
  #head({ first, heading }) {
    const known = this.list.querySelector(`[data-before="${first}"]`);
    const item = known ?? element("li", { className: "divider", "data-before": first }, element("h2", {}, this.hits.headings.get(first)));
    item.style.top = `${heading}px`;
    if (!known) this.list.append(item);
  }

  #drawSoon() {
    this.drawing ??= requestAnimationFrame(() => this.#draw());
  }

  // Creates and removes elements, so that those exist that are visible or less than one screen away. again: moves all.
  #draw({ again = false } = {}) {
    this.drawing = null;
    if (!this.hits) return;
    const above = -this.list.getBoundingClientRect().top;
    const first = rowAt(this.rows, above - innerHeight);
    const last = Math.min(rowAt(this.rows, above + 2 * innerHeight), this.rows.length - 1);
    const rows = this.rows.slice(first, last + 1);
    const stopRow = this.rows[rowOf(this.rows, this.stop)]; // keeps the keyboard focus when it is scrolled away
    if (stopRow && !rows.includes(stopRow)) rows.push(stopRow);
    const used = new Set();
    for (const row of rows) {
      for (const box of boxesOf(row, this.hits.ratios, this.style)) {
        if (!this.cells.has(box.index)) this.#create(row, box);
        else if (again) placed(this.cells.get(box.index), row, box);
        used.add(box.index);
      }
    }
    for (const [index, cell] of this.cells) {
      if (used.has(index)) continue;
      remove(cell);
      this.cells.delete(index);
    }
  }

  #create(row, box) {
    const { hits } = this;
    const { index } = box;
    const id = hits.ids[index];
    const cell = placed(cellOf(id, hits.versions[index]), row, box);
    mark(cell, this.selection.has(id));
    cell.querySelector(".tile").tabIndex = index === this.stop ? 0 : -1;
    cell.dataset.index = index;
    cell.setAttribute("aria-posinset", index + 1);
    this.cells.set(index, cell);
    const known = hits.at(index);
    if (known) describe(cell, known, index);
    else hits.fetch(index).then((hit) => hit && describe(cell, hit, index)).catch(() => {}); // the image alone remains
    const after = [...this.list.children].find((other) => Number(other.dataset.index ?? other.dataset.before - 0.5) > index);
    this.list.insertBefore(cell, after ?? null); // so that a screen reader finds them in order
  }

  #stopAt(index) {
    const tileAt = (position) => this.cells.get(position)?.querySelector(".tile");
    const before = tileAt(this.stop);
    if (before) before.tabIndex = -1;
    this.stop = index;
    const tile = tileAt(index);
    if (tile) tile.tabIndex = 0;
  }

  #move(event) {
    const tile = event.target.closest(".tile");
    if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
    const here = indexOf(tile);
    const inRow = (direction) => neighbour(this.rows, this.hits.ratios, this.style, here, direction);
    const targets = {
      ArrowLeft: () => here - 1,
      ArrowRight: () => here + 1,
      ArrowUp: () => inRow(-1),
      ArrowDown: () => inRow(1),
      Home: () => 0,
      End: () => this.count - 1,
    };
    const target = targets[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.count - 1, target)));
  }
}

const indexOf = (inside) => Number(inside.closest(".cell").dataset.index);

function styleOf(list) {
  const given = getComputedStyle(list);
  const px = (name) => Number.parseFloat(given.getPropertyValue(name));
  return { width: list.clientWidth, row: px("--row"), gapX: px("--gap-x"), gapY: px("--gap-y"), line: px("--caption"), heading: px("--heading") };
}

function placed(cell, row, { left, width }) {
  Object.assign(cell.style, { left: `${left}px`, top: `${row.top}px`, width: `${width}px` });
  cell.style.setProperty("--height", `${row.height}px`);
  return cell;
}

const blankCell = () =>
  element("li", { className: "cell blank", "aria-hidden": "true" }, element("span", { className: "frame" }), element("span", { className: "line" }));

// The tile of an image of which only id and version are known.
function cellOf(id, version) {
  const image = element("img", { alt: "", decoding: "async" });
  const frame = element("span", { className: "frame" }, image);
  const line = element("span", { className: "line" }, element("span", { className: "words" }));
  const tile = element("a", { className: "tile", href: addressOf(id), "data-id": id }, frame, line);
  load(image, frame, thumbnailUrl(id, TILE_PX, version));
  // Not an <input>: Chromium keeps each one in memory for the session history, also after its removal.
  const pick = element("button", { className: "pick", type: "button", role: "checkbox", tabIndex: -1, "aria-label": "Select" });
  return element("li", { className: "cell" }, tile, pick);
}

function describe(cell, hit, index) {
  const tile = cell.querySelector(".tile");
  const copies = hit.duplicates.length;
  const words = [`${index + 1}. ${hit.captions[0] ?? hit.name}`];
  if (hit.good) words.push("good match");
  if (copies) words.push(`${copies} near-${copies === 1 ? "duplicate" : "duplicates"} folded`);
  if (copies) cell.querySelector(".frame").append(element("span", { className: "copies-badge" }, `+${copies}`));
  tile.title = hit.name;
  tile.dataset.name = hit.name;
  tile.setAttribute("aria-label", words.join(", "));
  cell.querySelector(".words").textContent = lineOf(hit);
  cell.querySelector(".pick").setAttribute("aria-label", `Select ${hit.name}`);
}

// Below an image: its first caption, else when and where it was taken.
function lineOf(hit) {
  if (hit.captions.length) return hit.captions[0];
  const taken = hit.taken_at ?? hit.modified_at;
  return [taken && shortDay(taken.slice(0, 10)), hit.folder.split("/").at(-1)].filter(Boolean).join(" · ");
}

function load(image, frame, url) {
  image.addEventListener("load", () => frame.classList.add("loaded"));
  let retried = false;
  image.addEventListener("error", async () => {
    if (!image.isConnected) return; // removed while loading
    const reason = retried ? "" : await reasonOfMissing(url);
    if (!reason && !retried) {
      retried = true;
      image.src = url;
      return;
    }
    frame.classList.add("broken");
    frame.title = reason;
    image.replaceWith(element("span", { className: "broken-word" }, "No preview"));
  });
  image.src = url;
}

const mark = (cell, selected) => cell.querySelector(".pick").setAttribute("aria-checked", String(selected));

// Stops loading the image, before the removal: otherwise Chromium keeps the image in memory.
function remove(cell) {
  cell.querySelector("img")?.removeAttribute("src");
  cell.remove();
}

export const gridOf = (actions) => new Grid(byId("grid"), actions);
