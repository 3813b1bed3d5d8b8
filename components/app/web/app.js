// The page: one state, mirrored in the URL. Every change goes through change(); all parts render the state.

import { examples, facets, info, thumbnailUrl } from "./api.js";
import { showKeys, withToken } from "./dialogs.js";
import { FilterPanel } from "./filters.js";
import { FolderForm } from "./folders.js";
import { gridOf } from "./grid.js";
import { watchIndexing } from "./indexing.js";
import { uploadOf, watchForImages } from "./query_image.js";
import { forget, recent, remember } from "./recent.js";
import { Results } from "./results.js";
import { Selection } from "./selection.js";
import { ICON_PX } from "./sizes.js";
import { EMPTY, filtersOnly, fromAddress, hasImage, isSearch, splitWords, toAddress, toQuery, viewOfAddress, withoutFilters } from "./state.js";
import { Viewer } from "./viewer.js";
import { button, byId, element, images, notice } from "./words.js";

const KEPT_RESULTS = 20;
const STARTER_KEY = "image-finder-starter-known";
const TYPING_MS = 150; // pause in typing after which a search starts

let state = { ...EMPTY };
let entry = ""; // of the history
const kept = new Map(); // results by history entry, so that Back shows them as they were left
let typing = false; // whether typing updates the newest history entry instead of adding one

const panel = new FilterPanel((part) => change(part));
const selection = new Selection({ changed: () => grid.showSelection() });
const grid = gridOf({ open: (index) => viewer.openAt(index), selection });
const results = new Results(grid, { clearFilters: () => change(withoutFilters(state)) });
const viewer = new Viewer({
  results,
  query: explainedQuery,
  selection,
  moreLike,
  shown: rememberView,
  closed: forgetView,
});

// part: changed fields of the state. Typing updates one history entry, other changes add one each.
function change(part, { whileTyping = false } = {}) {
  state = { ...state, ...part };
  const typed = whileTyping && typing;
  const growing = typed || Boolean(history.state?.view);
  keepResults();
  if (!typed || !entry) entry = `${performance.timeOrigin} ${performance.now()}`;
  history[growing ? "replaceState" : "pushState"]({ query: state, entry }, "", toAddress(state));
  typing = whileTyping;
  show({ fields: !whileTyping });
  results.run(state, whileTyping ? TYPING_MS : 0);
}

function keepResults() {
  const shown = results.snapshot();
  kept.delete(entry); // so that it becomes the newest
  if (shown) kept.set(entry, shown);
  if (kept.size > KEPT_RESULTS) kept.delete(kept.keys().next().value);
}

function show({ fields }) {
  if (fields) {
    byId("text").value = state.text;
    byId("not").value = state.not;
  }
  const { text } = splitWords(state.text);
  document.title = text ? `${text} – Image Finder` : "Image Finder";
  panel.show(state);
  showOrder();
  showRecent();
  showTerm(Boolean(text));
}

// Without a query images are sorted by time only.
function showOrder() {
  const [best] = byId("order").options;
  best.hidden = best.disabled = !isSearch(state);
  byId("order").value = state.order || (isSearch(state) ? "" : "newest");
}

function showTerm(withWords) {
  const upload = uploadOf(state.upload);
  byId("image-term").hidden = !hasImage(state);
  if (!hasImage(state)) return;
  byId("term-image").src = upload ? upload.preview : thumbnailUrl(state.like, ICON_PX);
  byId("term-title").textContent = upload ? upload.name || "Pasted image" : "More like this image";
  byId("term-note").textContent = upload ? "Not part of the link; this image stays in your tab." : "";
  byId("mix-field").hidden = !withWords;
  byId("mix").value = state.mix;
  byId("mix").setAttribute("aria-valuetext", `image ${state.mix} %, text ${100 - state.mix} %`);
}

// The explained query: the terms of the search, without `not` and filters.
function explainedQuery() {
  if (!isSearch(state)) return null;
  const { terms } = toQuery(state, 1, 0);
  const { text } = splitWords(state.text);
  const parts = [text && `“${text}”`, hasImage(state) && "the image you searched by"];
  return { terms, image: uploadOf(state.upload)?.body ?? null, words: parts.filter(Boolean).join(" and ") };
}

function moreLike(id) {
  change({ ...filtersOnly(state), like: id });
  scrollTo({ top: 0 });
  byId("results").focus({ preventScroll: true });
}

function rememberSearch() {
  remember(state.text.trim());
}

function rememberView(id) {
  rememberSearch();
  const opened = history.state?.view ? history.state.opened : true;
  history[history.state?.view ? "replaceState" : "pushState"]({ query: state, view: id, opened, entry }, "", toAddress(state, id));
}

function forgetView(index) {
  if (history.state?.view) {
    if (history.state.opened) history.back(); // so that Back does not open it again
    else history.replaceState({ query: state, entry }, "", toAddress(state));
  }
  if (index >= 0) grid.focus(index);
}

// Restores the state from the URL or, after Back or a reload, from the history entry.
function restore() {
  const given = history.state?.query ?? fromAddress(location.search);
  const lost = given.upload && !uploadOf(given.upload);
  const next = { ...EMPTY, ...given, upload: lost ? "" : given.upload };
  const same = JSON.stringify(next) === JSON.stringify(state);
  const view = history.state ? (history.state.view ?? "") : viewOfAddress(location.search);
  if (!history.state) history.replaceState({ query: next, view, opened: false }, "", location.href);
  typing = false;
  state = next;
  show({ fields: true });
  if (!same) keepResults();
  entry = history.state?.entry ?? "";
  const before = kept.get(entry);
  if (!same && before) results.restore(before);
  else if (!same || !results.state) results.run(state);
  if (lost) notice("The uploaded image was lost when the tab was reloaded. Drop it again to search by it.");
  if (!view) viewer.close();
  else if (!viewer.isOpen || viewer.hit.id !== view) withToken(() => viewer.openId(view)).catch((error) => notice(error.message));
}

// A new index, or none yet. What failed without an index is tried again; the start page shows new images.
function indexed(answer, isFirst) {
  if (answer.generation) {
    loadFacets();
    showExamples();
  }
  else byId("welcome-count").textContent = "No images indexed yet. Run: image-finder index FOLDER";
  const idle = !isFirst && !isSearch(state) && scrollY < 100 && !viewer.isOpen && !grid.focused();
  if (answer.generation && (results.failed || idle)) results.run(state);
}

async function loadFacets() {
  try {
    const [found, about] = await Promise.all([withToken(facets), withToken(info)]);
    panel.setFacets(found);
    byId("welcome-count").textContent = found.images
      ? `Search ${images(found.images)} by what they show.`
      : "The library is empty. Run: image-finder index FOLDER";
    byId("about").textContent = aboutText(found, about);
    byId("starter").hidden = !about.bundle.starter || isStarterKnown();
    for (const id of ["text", "not"]) byId(id).maxLength = about.limits.query_characters;
  } catch {
    byId("about").textContent = ""; // a search reports the error; the page works without filter values
  }
}

function aboutText(found, about) {
  const parts = [`Image Finder ${about.version}`, images(found.images)];
  if (about.generation) parts.push(`index ${String(about.generation).split("-")[0].replace(/^0+(?=\d)/u, "")}`);
  parts.push(`${about.bundle.starter ? "starter model" : "model"} ${about.bundle.sha256.slice(0, 8)}`);
  return parts.join(" · ");
}

function toggleFilters(open = byId("filters").hidden) {
  byId("filters").hidden = !open;
  byId("toggle-filters").setAttribute("aria-expanded", String(open));
}

function listen() {
  for (const id of ["text", "not"]) {
    byId(id).addEventListener("input", (event) => change({ [id]: event.target.value }, { whileTyping: true }));
    byId(id).addEventListener("change", () => {
      typing = false;
      rememberSearch();
    });
  }
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !grid.count) return;
    event.preventDefault();
    grid.focus(0);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    typing = false;
    rememberSearch();
    results.run(state);
  });
  byId("hide-starter").addEventListener("click", () => {
    byId("starter").hidden = true;
    storeStarterKnown();
  });
  byId("forget").addEventListener("click", () => {
    forget();
    showRecent();
    byId("text").focus();
  });
  byId("mix").addEventListener("input", (event) => change({ mix: Number(event.target.value) }, { whileTyping: true }));
  byId("drop-term").addEventListener("click", () => {
    change({ like: "", upload: "" });
    byId("text").focus();
  });
  byId("fold").addEventListener("click", () => change({ duplicates: state.duplicates === "show" ? "fold" : "show" }));
  byId("order").addEventListener("change", (event) => change({ order: event.target.value }));
  byId("toggle-filters").addEventListener("click", () => toggleFilters());
  byId("close-filters").addEventListener("click", () => {
    toggleFilters(false);
    byId("toggle-filters").focus();
  });
  byId("show-keys").addEventListener("click", showKeys);
  document.addEventListener("keydown", pressed);
  addEventListener("popstate", restore);
  watchForImages(
    (upload) => {
      viewer.close();
      change({ upload, like: "" });
    },
    notice,
  );
}

function pressed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches('input:not([type="checkbox"], [type="radio"], [type="range"])')) return;
  const focused = grid.focused();
  const actions = {
    "/": () => byId("text").select(),
    "?": showKeys,
    f: () => toggleFilters(),
    ...(focused ? { m: () => moreLike(focused.id), x: () => selection.toggle(focused) } : {}),
    ...(byId("filters").hidden ? {} : { Escape: () => toggleFilters(false) }),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

const chipOf = (text) => element("li", {}, button(text, { className: "chip" }, () => change({ text })));

async function showExamples() {
  const { queries } = await withToken(examples).catch(() => ({ queries: [] }));
  byId("examples").replaceChildren(...queries.map(chipOf));
}

function showRecent() {
  const texts = recent();
  byId("recent").hidden = !texts.length;
  byId("recent-list").replaceChildren(...texts.map(chipOf));
}

// Whether the line about the starter model was closed in this browser.
function isStarterKnown() {
  try {
    return localStorage.getItem(STARTER_KEY) !== null;
  } catch {
    return false; // storage is disabled
  }
}

function storeStarterKnown() {
  try {
    localStorage.setItem(STARTER_KEY, "known");
  } catch {
    // storage is disabled: the line returns with the next visit
  }
}

history.scrollRestoration = "manual"; // restore() scrolls, after the results are there
listen();
new FolderForm(); // before restore(), which reads the address
restore();
watchIndexing(withToken, indexed);
