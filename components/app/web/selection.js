// Selected images, kept over several searches: downloads them, and copies their links or paths.

import { archiveUrl } from "./api.js";
import { addressOf } from "./state.js";
import { byId, images, notice } from "./words.js";

const MOST = 500; // that one archive holds

export class Selection {
  // changed(): called after every change
  constructor({ changed }) {
    this.hits = new Map();
    this.changed = changed;
    byId("clear-selection").addEventListener("click", () => this.clear());
    byId("copy-links").addEventListener("click", () => this.#copy("link", (hit) => new URL(addressOf(hit.id), location).href));
    byId("copy-paths").addEventListener("click", () => this.#copy("path", (hit) => hit.path));
  }

  has(id) {
    return this.hits.has(id);
  }

  toggle(hit) {
    if (!this.hits.delete(hit.id)) this.hits.set(hit.id, hit);
    this.#show();
  }

  clear() {
    this.hits.clear();
    this.#show();
  }

  #show() {
    const chosen = [...this.hits.values()];
    const tooMany = chosen.length > MOST;
    byId("selection").hidden = !chosen.length;
    byId("selection-count").textContent = tooMany ? `${images(chosen.length)}, at most ${MOST} at once` : `${images(chosen.length)} selected`;
    byId("download-selection").hidden = tooMany;
    byId("download-selection").href = archiveUrl(chosen.slice(0, MOST).map((hit) => hit.id));
    byId("copy-paths").hidden = !chosen.some((hit) => hit.path);
    this.changed();
  }

  async #copy(noun, wordsOf) {
    const lines = [...this.hits.values()].map(wordsOf).filter(Boolean);
    try {
      await navigator.clipboard.writeText(lines.join("\n"));
      byId("selection-count").textContent = `${lines.length} ${noun}${lines.length === 1 ? "" : "s"} copied`;
    } catch {
      notice("The browser does not let this page write to the clipboard; it needs https or localhost.");
    }
  }
}
