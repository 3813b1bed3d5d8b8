// The images of one result: id and shape of all, everything else only of the pages in use. Others are loaded again.

import { versionOf } from "./api.js";

const NARROWEST = 0.6; // shape of a tile; the grid crops longer images
const WIDEST = 2.2;
const KEPT_PAGES = 50;

export class Hits {
  // load(key): the images of the page with this key, as it was appended; grouped: whether good matches come first
  constructor(load, { grouped }) {
    this.load = load;
    this.grouped = grouped;
    this.ids = [];
    this.ratios = [];
    this.versions = []; // of the thumbnails
    this.headings = new Map(); // index of an image -> heading above it
    this.pages = []; // {first, end, key, hits: by id, or null if not kept, loading: promise or null}
    this.known = new Set();
    this.good = null; // of the last image
    this.folded = false; // whether an image has near-duplicates
  }

  get count() {
    return this.ids.length;
  }

  // Skips images already shown: the index may change between two pages.
  append(hits, key) {
    const first = this.count;
    for (const hit of hits) {
      if (this.known.has(hit.id)) continue;
      if (this.grouped && hit.good !== null && hit.good !== this.good) this.headings.set(this.count, hit.good ? "Good matches" : "Less certain");
      this.good = hit.good;
      this.folded ||= hit.duplicates.length > 0;
      this.known.add(hit.id);
      this.ids.push(hit.id);
      this.ratios.push(shapeOf(hit));
      this.versions.push(versionOf(hit));
    }
    this.pages.push({ first, end: this.count, key, hits: byIdOf(hits), loading: null });
    this.#drop(this.pages.length - 1);
  }

  // What is known of an image now; null if its page has to be loaded.
  at(index) {
    return this.#pageOf(index)?.hits?.get(this.ids[index]) ?? null;
  }

  // Loads the page of an image unless it is kept. The image may have been removed since: then null.
  async fetch(index) {
    const page = this.#pageOf(index);
    if (!page) return null;
    if (!page.hits) {
      page.loading ??= this.load(page.key).finally(() => (page.loading = null));
      page.hits = byIdOf(await page.loading);
      this.#drop(this.pages.indexOf(page));
    }
    return page.hits.get(this.ids[index]) ?? null;
  }

  indexOf(id) {
    return this.known.has(id) ? this.ids.indexOf(id) : -1;
  }

  #pageOf(index) {
    return this.pages.find(({ first, end }) => first <= index && index < end);
  }

  #drop(current) {
    for (const [position, page] of this.pages.entries()) {
      if (Math.abs(position - current) > KEPT_PAGES / 2) page.hits = null;
    }
  }
}

const byIdOf = (hits) => new Map(hits.map((hit) => [hit.id, hit]));

function shapeOf({ width_px: width, height_px: height }) {
  return width && height ? Math.min(WIDEST, Math.max(NARROWEST, width / height)) : 1;
}
