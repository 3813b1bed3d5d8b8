// The results in rows of equal height, with keyboard navigation; knows nothing of queries.

import { reasonOfMissing, thumbnailUrl } from "./api.js";
import { TILE_PX } from "./sizes.js";
import { addressOf } from "./state.js";
import { byId, day, element } from "./words.js";

const EAGER = 8; // images of the first screen; the others load lazily
const NARROWEST = 0.6; // aspect ratio of a tile; the grid crops longer images
const WIDEST = 2.2;

export class Grid {
  // open(index): called for the chosen image; selection: of images, see selection.js
  constructor(list, { open, selection }) {
    this.list = list;
    this.open = open;
    this.selection = selection;
    this.hits = [];
    list.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (!tile || event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser opens the link elsewhere
      event.preventDefault();
      this.open(this.tiles().indexOf(tile));
    });
    list.addEventListener("change", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) this.selection.toggle(this.hits[this.tiles().indexOf(cell.querySelector(".tile"))]);
    });
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("focusin", (event) => this.#stop(event.target.closest(".tile")));
  }

  tiles() {
    return [...this.list.querySelectorAll(".tile")];
  }

  focused() {
    const index = this.tiles().indexOf(document.activeElement);
    return index < 0 ? null : this.hits[index];
  }

  focus(index) {
    const tile = this.tiles()[index];
    tile?.focus();
    tile?.scrollIntoView({ block: "nearest" });
  }

  replace(hits) {
    this.hits = [];
    this.list.replaceChildren();
    this.append(hits);
  }

  // Skips images already shown: the index may change between two pages.
  append(hits) {
    const known = new Set(this.hits.map((hit) => hit.id));
    const fresh = hits.filter((hit) => !known.has(hit.id));
    for (const hit of fresh) {
      const before = this.hits.at(-1)?.good;
      if (hit.good !== null && hit.good !== before) {
        // Fills the row above, so that its images do not grow.
        if (this.hits.length) this.list.append(element("li", { className: "filler", "aria-hidden": "true" }));
        this.list.append(dividerOf(hit.good));
      }
      this.list.append(tileOf(hit, this.hits.length, this.selection.has(hit.id)));
      this.hits.push(hit);
    }
    if (!this.list.querySelector('.tile[tabindex="0"]')) this.#stop(this.tiles()[0]);
  }

  // Marks what is selected now.
  showSelection() {
    this.list.classList.toggle("selecting", this.selection.hits.size > 0);
    this.list.querySelectorAll(".pick").forEach((box, index) => (box.checked = this.selection.has(this.hits[index].id)));
  }

  skeleton(count) {
    this.hits = [];
    const ratios = [1.5, 1.33, 0.75, 1.5, 1, 1.33, 1.5, 0.75];
    const blanks = Array.from({ length: count }, (_, position) => {
      const blank = element("li", { className: "cell blank", "aria-hidden": "true" });
      blank.style.setProperty("--ratio", ratios[position % ratios.length]);
      blank.append(element("span", { className: "frame" }), element("span", { className: "line" }));
      return blank;
    });
    this.list.replaceChildren(...blanks);
  }

  // One tab stop for the grid; arrow keys move within it.
  #stop(tile) {
    if (!tile) return;
    this.list.querySelectorAll('.tile[tabindex="0"]').forEach((other) => (other.tabIndex = -1));
    tile.tabIndex = 0;
  }

  #move(event) {
    const tiles = this.tiles();
    const here = tiles.indexOf(document.activeElement);
    if (here < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const targets = {
      ArrowLeft: () => here - 1,
      ArrowRight: () => here + 1,
      ArrowUp: () => neighbour(tiles, here, -1),
      ArrowDown: () => neighbour(tiles, here, 1),
      Home: () => 0,
      End: () => tiles.length - 1,
    };
    const target = targets[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(tiles.length - 1, target)));
  }
}

// Index of the horizontally nearest tile in the next row; `here` if there is none.
function neighbour(tiles, here, direction) {
  const boxes = tiles.map((tile) => tile.getBoundingClientRect());
  const middle = (box) => box.left + box.width / 2;
  const from = boxes[here];
  const beyond = boxes.map((box, index) => ({ box, index })).filter(({ box }) => (box.top - from.top) * direction > 1);
  if (!beyond.length) return here;
  const row = beyond[direction > 0 ? 0 : beyond.length - 1].box.top;
  const inRow = beyond.filter(({ box }) => Math.abs(box.top - row) < 2);
  const distance = ({ box }) => Math.abs(middle(box) - middle(from));
  return inRow.reduce((best, next) => (distance(next) < distance(best) ? next : best)).index;
}

function dividerOf(good) {
  return element("li", { className: "divider" }, element("h2", {}, good ? "Good matches" : "Less certain"));
}

function tileOf(hit, position, selected) {
  const ratio = hit.width_px && hit.height_px ? hit.width_px / hit.height_px : 1;
  const cell = element("li", { className: "cell" });
  cell.style.setProperty("--ratio", Math.min(WIDEST, Math.max(NARROWEST, ratio)).toFixed(4));
  const copies = hit.duplicates.length;
  const image = element("img", { alt: "", decoding: "async", loading: position < EAGER ? "eager" : "lazy" });
  const frame = element("span", { className: "frame" }, image);
  if (copies) frame.append(element("span", { className: "copies-badge" }, `+${copies}`));
  const words = [`${hit.rank}. ${hit.captions[0] ?? hit.name}`];
  if (hit.good) words.push("good match");
  if (copies) words.push(`${copies} near-${copies === 1 ? "duplicate" : "duplicates"} folded`);
  const line = element("span", { className: "line" }, element("span", { className: "words" }, lineOf(hit)));
  const tile = element("a", { className: "tile", tabIndex: -1, href: addressOf(hit.id), title: hit.name }, frame, line);
  tile.setAttribute("aria-label", words.join(", "));
  tile.dataset.id = hit.id;
  tile.dataset.name = hit.name;
  load(image, frame, thumbnailUrl(hit.id, TILE_PX));
  const pick = element("input", { className: "pick", type: "checkbox", tabIndex: -1, checked: selected, "aria-label": `Select ${hit.name}` });
  cell.append(tile, pick);
  return cell;
}

// Below an image: its first caption, else when and where it was taken.
function lineOf(hit) {
  if (hit.captions.length) return hit.captions[0];
  const taken = hit.taken_at ?? hit.modified_at;
  return [taken && day(taken.slice(0, 10)), hit.folder.split("/").at(-1)].filter(Boolean).join(" · ");
}

function load(image, frame, url) {
  image.addEventListener("load", () => frame.classList.add("loaded"));
  let retried = false;
  image.addEventListener("error", async () => {
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

export const gridOf = (actions) => new Grid(byId("grid"), actions);
