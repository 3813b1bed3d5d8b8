// One image in large, with its metadata; steps through the results.

import { originalUrl, image, reasonOfMissing, thumbnailUrl, versionOf, viewUrl } from "./api.js";
import { Explanation } from "./explanation.js";
import { LabelForm } from "./labels.js";
import { ICON_PX, TILE_PX, VIEW_PX } from "./sizes.js";
import { button, byId, coordinates, element, fileSize, moment, whole } from "./words.js";
import { Zoom } from "./zoom.js";

const SLIDE_MS = 4000;

export class Viewer {
  // results: see results.js; selection: see selection.js; query(): see Explanation; moreLike(id); shown(id): after opening; closed(index): last index or -1
  constructor(actions) {
    this.actions = actions;
    this.dialog = byId("viewer");
    this.image = byId("viewer-image");
    this.labels = new LabelForm();
    this.hit = null;
    this.index = -1;
    this.explanation = new Explanation({
      query: actions.query,
      show: (url) => this.#load(url),
      restore: () => this.#load(viewUrl(this.hit.id)),
      say: (words) => (byId("stage-note").textContent = words),
    });
    byId("close-viewer").addEventListener("click", () => this.close());
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("more-like").addEventListener("click", () => this.moreLike());
    byId("select").addEventListener("click", () => this.#select());
    byId("play").addEventListener("click", () => this.#play(true));
    byId("pause").addEventListener("click", () => this.#play(false));
    this.dialog.addEventListener("close", () => {
      this.#play(false);
      this.explanation.reset("");
      this.actions.closed(this.index);
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("click", ({ target }) => {
      if (target === this.dialog || target.classList.contains("stage")) this.close(); // outside the image
    });
    this.dialog.addEventListener("cancel", (event) => {
      if (!this.playing) return;
      event.preventDefault(); // Escape ends the slideshow first
      this.#play(false);
    });
    this.zoom = new Zoom(this.dialog.querySelector(".stage"), this.image, {
      swiped: (direction) => this.step(direction),
      zoomed: () => this.#sharpen(),
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  // Does nothing if the image has been removed, or if another one is opened meanwhile.
  async openAt(index) {
    this.index = index;
    const { hits } = this.actions.results;
    const hit = hits.at(index) ?? (await hits.fetch(index));
    if (hit && this.index === index) this.#show(hit);
  }

  // Opens any image, such as that of a link or a near-duplicate.
  async openId(id) {
    const index = this.actions.results.hits?.indexOf(id) ?? -1;
    if (index >= 0) return this.openAt(index);
    const facts = await image(id);
    return this.#show({ score: null, good: null, duplicates: [], ...facts });
  }

  close() {
    if (this.isOpen) this.dialog.close();
  }

  async step(direction) {
    const { results } = this.actions;
    const target = this.index + direction;
    if (this.index < 0 || target < 0) return;
    if (target >= results.count) await results.loadMore();
    if (this.isOpen && target < results.count) await this.openAt(target);
  }

  moreLike() {
    const { id } = this.hit;
    this.index = -1; // the results change, so there is no tile to return to
    this.actions.moreLike(id);
    this.close();
  }

  #key(event) {
    const typing = event.target.matches("input");
    if (typing || event.altKey || event.ctrlKey || event.metaKey) return;
    const actions = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      m: () => this.moreLike(),
      e: () => this.explanation.toggle(),
      x: () => this.#select(),
      s: () => this.#play(!this.playing),
      "+": () => this.zoom.in(),
      "-": () => this.zoom.out(),
      0: () => this.zoom.reset(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  #show(hit) {
    this.hit = hit;
    this.explanation.reset(hit.id);
    this.zoom.reset();
    this.#showSelected();
    byId("viewer-name").textContent = hit.name;
    this.#showPosition();
    byId("viewer-captions").replaceChildren(...hit.captions.map((caption) => element("li", {}, caption)));
    byId("download").href = originalUrl(hit.id);
    byId("download").download = hit.name;
    this.image.alt = hit.captions[0] ?? hit.name;
    showMatch(hit);
    byId("viewer-facts").replaceChildren(...factsOf(hit));
    this.#showCopies(hit);
    this.labels.show(hit.id);
    // shows the cached thumbnail at full size until the larger image is loaded
    this.image.width = hit.width_px || 800;
    this.image.height = hit.height_px || 600;
    this.image.style.setProperty("--ratio", String((hit.width_px || 4) / (hit.height_px || 3)));
    this.image.style.setProperty("--widest", `${Math.min(VIEW_PX, 2.5 * (hit.width_px || 640))}px`); // small images stay sharp
    this.image.hidden = false;
    this.image.src = thumbnailUrl(hit.id, TILE_PX, versionOf(hit));
    this.#load(viewUrl(hit.id));
    if (!this.isOpen) {
      this.dialog.showModal();
      this.dialog.querySelector(".details").focus({ preventScroll: true });
    }
    this.dialog.querySelector(".details").scrollTop = 0;
    this.actions.shown(hit.id);
  }

  #select() {
    this.actions.selection.toggle(this.hit);
    this.#showSelected();
  }

  #showSelected() {
    byId("select").setAttribute("aria-pressed", String(this.actions.selection.has(this.hit.id)));
  }

  // Shows one image after another, until the last one.
  #play(playing) {
    clearTimeout(this.playing);
    this.playing = null;
    if (playing === this.dialog.classList.contains("playing")) return;
    this.dialog.classList.toggle("playing", playing);
    if (playing) this.#slide();
    if (this.isOpen) byId(playing ? "pause" : "play").focus(); // hidden elements receive no keys
  }

  #slide() {
    this.playing = setTimeout(async () => {
      const before = this.index;
      await this.step(1);
      if (!this.playing) return;
      if (this.index === before) this.#play(false);
      else this.#slide();
    }, SLIDE_MS);
  }

  // Replaces the view by the original, if that has more pixels and the browser can show it.
  async #sharpen() {
    const { id, width_px: width, height_px: height } = this.hit;
    if (Math.max(width, height) <= VIEW_PX || this.image.dataset.shows !== viewUrl(id)) return;
    const original = new Image();
    original.src = originalUrl(id);
    const loaded = await original.decode().then(() => true, () => false);
    if (loaded && this.hit.id === id && this.image.dataset.shows === viewUrl(id)) this.image.src = original.src;
  }

  #showPosition() {
    const { count, hasMore } = this.actions.results;
    byId("viewer-position").textContent = this.index < 0 ? "" : `${whole(this.index + 1)} of ${whole(count)}${hasMore ? "+" : ""}`;
    byId("previous").disabled = this.index <= 0;
    byId("next").disabled = this.index < 0 || (this.index === count - 1 && !hasMore);
  }

  // Shows an image once it is decoded, unless another one was requested meanwhile.
  async #load(url) {
    this.requested = url;
    this.image.classList.add("coming");
    byId("stage-note").textContent = "";
    const coming = new Image();
    coming.src = url;
    const loaded = await coming.decode().then(() => true, () => false);
    const reason = loaded ? "" : await reasonOfMissing(url);
    if (this.requested !== url) return;
    this.image.classList.remove("coming");
    this.image.dataset.shows = loaded ? url : "";
    if (loaded) this.image.src = url;
    coming.removeAttribute("src"); // Chromium never frees the content of an image outside the document
    if (!loaded) this.#missing(reason || "Could not show this image.");
  }

  #missing(reason) {
    byId("stage-note").textContent = reason;
    if (!this.image.complete || !this.image.naturalWidth) this.image.hidden = true;
  }

  #showCopies(hit) {
    byId("copies").hidden = hit.duplicates.length === 0;
    byId("copy-list").replaceChildren(
      ...hit.duplicates.map((id, position) => {
        const image = element("img", { src: thumbnailUrl(id, ICON_PX), alt: "", loading: "lazy" });
        const open = () => this.openId(id).catch((error) => this.#missing(error.message));
        return element("li", {}, button(image, { "aria-label": `Open near-duplicate ${position + 1}` }, open));
      }),
    );
  }
}

function showMatch(hit) {
  const words = [];
  if (hit.good) words.push(element("span", { className: "good" }, "Good match"));
  if (hit.score !== null) words.push(element("span", { className: "cosine" }, `cosine ${hit.score.toFixed(3)}`));
  byId("viewer-match").replaceChildren(...words);
}

function factsOf(hit) {
  const rows = [
    ["Taken", hit.taken_at && moment(hit.taken_at)],
    ["Modified", !hit.taken_at && hit.modified_at && moment(hit.modified_at)], // used by the date filter instead
    ["Camera", hit.camera],
    ["Size", hit.width_px && `${whole(hit.width_px)} × ${whole(hit.height_px)} px, ${fileSize(hit.bytes)}`],
    ["Location", typeof hit.latitude === "number" && coordinates(hit.latitude, hit.longitude)],
    ["Folder", hit.folder],
  ];
  return rows
    .filter(([, value]) => value)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}
