// One image in large, with its metadata; steps through the results.

import { originalUrl, image, reasonOfMissing, thumbnailUrl, viewUrl } from "./api.js";
import { Explanation } from "./explanation.js";
import { LabelForm } from "./labels.js";
import { ICON_PX, TILE_PX, VIEW_PX } from "./sizes.js";
import { button, byId, coordinates, element, fileSize, moment, whole } from "./words.js";

const SWIPE_PX = 60;

export class Viewer {
  // hits(): the results; query(): see Explanation; moreLike(id); shown(id): after opening; closed(index): last index or -1
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
    this.dialog.addEventListener("close", () => {
      this.explanation.reset("");
      this.actions.closed(this.index);
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("click", ({ target }) => {
      if (target === this.dialog || target.classList.contains("stage")) this.close(); // outside the image
    });
    this.#listenForSwipes(this.dialog.querySelector(".stage"));
  }

  #listenForSwipes(stage) {
    let from = null;
    stage.addEventListener("touchstart", ({ touches }) => (from = touches.length === 1 ? touches[0].clientX : null), { passive: true });
    stage.addEventListener("touchend", ({ changedTouches }) => {
      const way = from === null ? 0 : changedTouches[0].clientX - from;
      from = null;
      if (Math.abs(way) > SWIPE_PX) this.step(way < 0 ? 1 : -1);
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  openAt(index) {
    this.index = index;
    this.#show(this.actions.hits()[index]);
  }

  // Opens any image, such as that of a link or a near-duplicate.
  async openId(id) {
    const index = this.actions.hits().findIndex((hit) => hit.id === id);
    if (index >= 0) return this.openAt(index);
    const facts = await image(id);
    return this.#show({ rank: 0, score: null, good: null, duplicates: [], ...facts });
  }

  close() {
    if (this.isOpen) this.dialog.close();
  }

  async step(direction) {
    const target = this.index + direction;
    if (target < 0) return;
    if (target >= this.actions.hits().length) await this.actions.loadMore();
    if (this.isOpen && target < this.actions.hits().length) this.openAt(target);
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
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  #show(hit) {
    this.hit = hit;
    this.explanation.reset(hit.id);
    byId("viewer-name").textContent = hit.name;
    byId("viewer-position").textContent = this.index < 0 ? "" : `${whole(this.index + 1)} of ${whole(this.actions.hits().length)}${this.actions.hasMore() ? "+" : ""}`;
    byId("previous").disabled = this.index <= 0;
    byId("next").disabled = this.index < 0 || (this.index === this.actions.hits().length - 1 && !this.actions.hasMore());
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
    this.image.src = thumbnailUrl(hit.id, TILE_PX);
    this.#load(viewUrl(hit.id));
    if (!this.isOpen) {
      this.dialog.showModal();
      this.dialog.querySelector(".details").focus({ preventScroll: true });
    }
    this.dialog.querySelector(".details").scrollTop = 0;
    this.actions.shown(hit.id);
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
    else this.#missing(reason || "Could not show this image.");
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
