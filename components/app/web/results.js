// Runs searches and shows their results: images, a notice or an error. A new search cancels the previous one.

import { browse, search } from "./api.js";
import { withToken } from "./dialogs.js";
import { Hits } from "./hits.js";
import { uploadOf } from "./query_image.js";
import { PAGE_HITS } from "./sizes.js";
import { countFilters, isSearch, notTerms, toBrowse, toQuery } from "./state.js";
import { button, byId, element, images, notice, whole } from "./words.js";

const SKELETONS = 16;
const AHEAD_PX = 1200; // how far below the visible part the next page is loaded

export class Results {
  // clearFilters(): called by a button
  constructor(grid, actions) {
    this.grid = grid;
    this.actions = actions;
    this.running = null;
    this.state = null;
    this.hits = null; // shown now
    this.received = 0;
    this.cursor = null;
    this.hasMore = false;
    this.failed = false;
    this.first = null; // answer with the first page
    byId("more").addEventListener("click", () => this.loadMore());
    const near = (entries) => entries.some((entry) => entry.isIntersecting) && !this.stuck && this.loadMore();
    this.observer = new IntersectionObserver(near, { rootMargin: `${AHEAD_PX}px` });
    this.observer.observe(byId("more"));
  }

  get count() {
    return this.hits?.count ?? 0;
  }

  // Searches for `state` after delay_ms, unless another run starts first.
  run(state, delay_ms = 0) {
    this.#stop();
    this.state = state;
    this.failed = false;
    this.first = null;
    byId("error").hidden = true;
    this.timer = setTimeout(() => this.#first(), isSearch(state) ? delay_ms : 0);
  }

  // What is shown now, for restore(); null while nothing is.
  snapshot() {
    if (!this.first) return null;
    const { state, first, hits, received, cursor, hasMore } = this;
    return { state, first, hits, received, cursor, hasMore, scroll: scrollY };
  }

  // Shows what a snapshot holds, without a request.
  restore({ scroll, ...facts }) {
    this.#stop();
    this.running = new AbortController();
    this.#clear();
    Object.assign(this, { failed: false }, facts);
    byId("welcome").hidden = !this.#welcomes() || !this.count;
    this.grid.show(this.hits);
    this.#showCount();
    this.#watchEnd();
    this.#judge(this.first);
    this.#busy(false);
    scrollTo({ top: scroll, behavior: "instant" });
  }

  // Resolves when another page has been added, or none could be.
  loadMore() {
    this.loadingMore ??= this.#next().finally(() => (this.loadingMore = null));
    return this.loadingMore;
  }

  #stop() {
    this.running?.abort();
    clearTimeout(this.timer);
    this.loadingMore = null;
    this.stuck = false;
  }

  #welcomes() {
    return !isSearch(this.state) && !countFilters(this.state);
  }

  async #first() {
    const running = (this.running = new AbortController());
    const { state } = this;
    this.#busy(true);
    byId("welcome").hidden = !this.#welcomes();
    if (!this.grid.count && byId("error").hidden && byId("empty").hidden) this.grid.skeleton(SKELETONS);
    try {
      const answer = await this.#page(state, running, {});
      if (running.signal.aborted) return;
      this.#clear();
      byId("welcome").hidden = !this.#welcomes() || !answer.hits.length;
      if (this.#welcomes() && notTerms(state).length) notice("Add something to search for; “Not” only ranks images lower.");
      const load = (place) => this.#page(state, null, place).then(({ hits }) => hits);
      this.hits = new Hits(load, { grouped: !state.order });
      this.first = answer;
      this.received = 0;
      this.#add(answer, {});
      this.grid.show(this.hits);
      this.#watchEnd();
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
    const { running, state } = this;
    const place = { offset: this.received, cursor: this.cursor };
    byId("more").textContent = "Loading …";
    try {
      const answer = await this.#page(state, running, place);
      if (running.signal.aborted) return;
      this.#add(answer, place);
      this.grid.extended();
      byId("more").textContent = "More results";
      this.stuck = false;
      this.#watchEnd();
    } catch (error) {
      if (running.signal.aborted) return;
      this.stuck = true; // the button tries again, scrolling does not
      byId("more").textContent = `${error.message} Try again`;
    }
  }

  // Has the observer report once more, as the button may have been near before, too.
  #watchEnd() {
    this.observer.unobserve(byId("more"));
    this.observer.observe(byId("more"));
  }

  #add(answer, place) {
    this.hits.append(answer.hits, place);
    this.received += answer.hits.length;
    this.cursor = answer.cursor ?? null;
    this.hasMore = answer.more && answer.hits.length > 0;
    this.#showCount();
  }

  // A page of a search from an offset or, without a query, of all images by time after a cursor, in the form of a
  // search's answer. running: null for a page that was shown before.
  async #page(state, running, { offset = 0, cursor = null }) {
    const signal = running?.signal;
    const say = (words) => running && !signal.aborted && notice(words);
    if (isSearch(state)) {
      return withToken(() => search(toQuery(state, PAGE_HITS, offset), uploadOf(state.upload)?.body, { signal, say }));
    }
    const answer = await withToken(() => browse(toBrowse(state, PAGE_HITS, cursor), { signal, say }));
    const hits = answer.images.map((image) => ({ ...image, score: null, good: null, duplicates: [] }));
    return { ...answer, hits, more: Boolean(answer.cursor), matches_well: null, unmet: [], truncated: [], took_ms: {} };
  }

  #showCount() {
    byId("more").hidden = !this.hasMore;
    byId("summary").textContent = this.count ? this.#countText() : "No images";
    byId("sort").hidden = !this.count;
    const shows = this.state.duplicates === "show";
    byId("fold").hidden = !this.hits.folded && !shows;
    byId("fold").textContent = shows ? "Fold duplicates" : "Show duplicates";
  }

  #countText() {
    const within = countFilters(this.state) ? " matching the filters" : "";
    const all = `${images(this.first.candidates)}${within}`;
    return isSearch(this.state) ? `Top ${whole(this.count)} of ${all}` : all;
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
    this.grid.clear();
    this.hits = null;
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
    for (const id of ["error", "empty", "notice", "welcome", "more", "fold", "sort"]) byId(id).hidden = true;
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
