// Runs searches and shows their results: images, a notice or an error. A new search cancels the previous one.

import { browse, search } from "./api.js";
import { withToken } from "./dialogs.js";
import { uploadOf } from "./query_image.js";
import { PAGE_HITS } from "./sizes.js";
import { countFilters, isSearch, notTerms, toBrowse, toQuery } from "./state.js";
import { button, byId, element, images, notice, whole } from "./words.js";

const SELF_LOADING = 4; // pages loaded by scrolling; then a button, so that the footer is reachable
const SKELETONS = 16;

export class Results {
  // clearFilters(): called by a button
  constructor(grid, actions) {
    this.grid = grid;
    this.actions = actions;
    this.running = null;
    this.state = null;
    this.received = 0;
    this.cursor = null;
    this.pages = 0;
    this.hasMore = false;
    this.failed = false;
    this.first = null; // answer with the first page
    byId("more").addEventListener("click", () => this.loadMore());
    const near = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.pages < SELF_LOADING && this.loadMore(),
      { rootMargin: "600px" },
    );
    near.observe(byId("more"));
  }

  // Searches for `state` after delay_ms, unless another run starts first.
  run(state, delay_ms = 0) {
    this.running?.abort();
    clearTimeout(this.timer);
    this.state = state;
    this.loadingMore = null;
    this.received = 0;
    this.cursor = null;
    this.failed = false;
    this.first = null;
    byId("error").hidden = true;
    this.timer = setTimeout(() => this.#first(), isSearch(state) ? delay_ms : 0);
  }

  // What is shown now, for restore(); null while nothing is.
  snapshot() {
    if (!this.first) return null;
    const { state, first, received, cursor, pages, hasMore } = this;
    return { state, first, received, cursor, pages, hasMore, hits: this.grid.hits, scroll: scrollY };
  }

  // Shows what a snapshot holds, without a request.
  restore({ hits, scroll, ...facts }) {
    this.running?.abort();
    clearTimeout(this.timer);
    this.running = new AbortController();
    this.#clear();
    Object.assign(this, { loadingMore: null, failed: false }, facts);
    byId("welcome").hidden = isSearch(this.state) || countFilters(this.state) > 0 || !hits.length;
    this.grid.replace(hits);
    this.#showCount(this.first.candidates);
    this.#judge(this.first);
    this.#busy(false);
    scrollTo({ top: scroll, behavior: "instant" });
  }

  loadMore() {
    this.loadingMore ??= this.#next().finally(() => (this.loadingMore = null));
    return this.loadingMore;
  }

  async #first() {
    const running = (this.running = new AbortController());
    this.#busy(true);
    const welcomes = !isSearch(this.state) && !countFilters(this.state);
    byId("welcome").hidden = !welcomes;
    if (!this.grid.hits.length && byId("error").hidden && byId("empty").hidden) this.grid.skeleton(SKELETONS);
    try {
      const answer = await this.#page(running);
      if (running.signal.aborted) return;
      this.#clear();
      byId("welcome").hidden = !welcomes || !answer.hits.length;
      if (welcomes && notTerms(this.state).length) notice("Add something to search for; “Not” only ranks images lower.");
      this.grid.replace(answer.hits);
      this.pages = 1;
      this.first = answer;
      this.#count(answer);
      this.#judge(answer);
    } catch (error) {
      if (running.signal.aborted) return;
      this.#clear();
      this.#fail(error);
    }
    this.#busy(false);
  }

  async #next() {
    if (!this.hasMore) return;
    const running = this.running;
    byId("more").textContent = "Loading …";
    try {
      const answer = await this.#page(running);
      if (running.signal.aborted) return;
      this.grid.append(answer.hits);
      this.pages += 1;
      byId("more").textContent = "More results";
      this.#count(answer);
    } catch (error) {
      if (running.signal.aborted) return;
      this.pages = SELF_LOADING; // the button tries again, scrolling does not
      byId("more").textContent = `${error.message} Try again`;
    }
  }

  // The next page of a search, or without a query of all images by time, in the form of a search's answer.
  async #page(running) {
    const { state } = this;
    const { signal } = running;
    const say = (words) => !signal.aborted && notice(words);
    if (isSearch(state)) {
      return withToken(() => search(toQuery(state, PAGE_HITS, this.received), uploadOf(state.upload)?.body, { signal, say }));
    }
    const answer = await withToken(() => browse(toBrowse(state, PAGE_HITS, this.cursor), { signal, say }));
    const hits = answer.images.map((image, index) => ({
      ...image, rank: this.received + index + 1, score: null, good: null, duplicates: [],
    }));
    if (!signal.aborted) this.cursor = answer.cursor;
    return { hits, candidates: answer.candidates, more: Boolean(answer.cursor), matches_well: null, unmet: [], truncated: [], took_ms: {} };
  }

  #count(answer) {
    this.received = this.pages === 1 ? answer.hits.length : this.received + answer.hits.length;
    this.hasMore = answer.more && answer.hits.length > 0;
    this.#showCount(answer.candidates);
  }

  #showCount(candidates) {
    byId("more").hidden = !this.hasMore;
    const shown = this.grid.hits.length;
    const within = countFilters(this.state) ? " matching the filters" : "";
    const all = isSearch(this.state) ? `Top ${whole(shown)} of ${images(candidates)}${within}` : `${images(candidates)}${within}, newest first`;
    byId("summary").textContent = shown ? all : "No images";
    const copies = this.grid.hits.some((hit) => hit.duplicates.length);
    const shows = this.state.duplicates === "show";
    byId("fold").hidden = !copies && !shows;
    byId("fold").textContent = shows ? "Fold duplicates" : "Show duplicates";
  }

  #judge(answer) {
    if (answer.hits.length) {
      const notices = answer.matches_well === false ? ["No good match; these are the closest images."] : [];
      const unmet = answer.unmet.map((word) => `“${word}”`);
      if (unmet.length) {
        const words = `${unmet.length === 1 ? "the word" : "the words"} ${unmet.join(", ")}`;
        notices.push(`The model has never seen ${words}; these results are guesses.`);
      }
      for (const { used, unused } of answer.truncated) {
        notices.push(`The query is too long for the model. Used: “${used}”; ignored: “${unused}”.`);
      }
      if (notices.length) notice(notices.join(" "));
    }
    const total_ms = answer.took_ms.total;
    byId("took").textContent = total_ms ? `${Math.max(1, Math.round(total_ms))} ms` : "";
    if (answer.hits.length) return;
    const filtered = countFilters(this.state) > 0;
    if (answer.notice || (answer.candidates === 0 && !filtered)) {
      this.#nothing("The library is empty", "Run: image-finder index FOLDER", []);
    } else {
      const why = answer.candidates === 0 ? "No image matches these filters." : "No image reaches the minimum score.";
      this.#nothing("Nothing found", why, filtered ? [["Clear filters", this.actions.clearFilters]] : []);
    }
  }

  #fail(error) {
    this.grid.replace([]);
    this.failed = true;
    if (error.code === "not_ready" && !isSearch(this.state)) {
      byId("welcome").hidden = false; // says that there is no index
      return;
    }
    // The cause may be a filter, such as a removed folder in an old link.
    const mayBeFilter = error.code === "bad_query" && countFilters(this.state);
    byId("error").replaceChildren(
      element("p", { className: "error-words" }, error.message),
      ...(error.requestId ? [element("p", { className: "hint" }, `Request ${error.requestId}`)] : []),
      button("Try again", { className: "primary" }, () => this.run(this.state)),
      ...(mayBeFilter ? [button("Clear filters", { className: "quiet" }, this.actions.clearFilters)] : []),
    );
    byId("error").hidden = false;
  }

  #nothing(title, why, actions) {
    const buttons = actions.map(([words, act]) => button(words, { className: "primary" }, act));
    byId("empty").replaceChildren(element("h2", {}, title), element("p", {}, why), ...buttons);
    byId("empty").hidden = false;
  }

  #clear() {
    for (const id of ["error", "empty", "notice", "welcome", "more", "fold"]) byId(id).hidden = true;
    byId("summary").textContent = "";
    byId("took").textContent = "";
    byId("more").textContent = "More results";
    this.hasMore = false;
  }

  #busy(busy) {
    byId("progress").hidden = !busy;
    byId("grid").setAttribute("aria-busy", String(busy));
  }
}
