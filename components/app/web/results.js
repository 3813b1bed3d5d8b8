// Runs searches and shows their results: images, a notice or an error. A new search cancels the previous one.

import { search } from "./api.js";
import { withToken } from "./dialogs.js";
import { uploadOf } from "./query_image.js";
import { PAGE_HITS } from "./sizes.js";
import { countFilters, isSearch, notTerms, toQuery } from "./state.js";
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
    this.pages = 0;
    this.hasMore = false;
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
    if (isSearch(state)) this.timer = setTimeout(() => this.#first(), delay_ms);
    else this.#welcome();
  }

  loadMore() {
    this.loadingMore ??= this.#next().finally(() => (this.loadingMore = null));
    return this.loadingMore;
  }

  async #first() {
    const running = (this.running = new AbortController());
    this.#busy(true);
    byId("welcome").hidden = true;
    if (!this.grid.hits.length && byId("error").hidden && byId("empty").hidden) this.grid.skeleton(SKELETONS);
    try {
      const answer = await this.#search(0, running);
      if (running.signal.aborted) return;
      this.#clear();
      this.grid.replace(answer.hits);
      this.pages = 1;
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
      const answer = await this.#search(this.received, running);
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

  #search(offset, running) {
    const { state } = this;
    const { signal } = running;
    const say = (words) => !signal.aborted && notice(words);
    return withToken(() => search(toQuery(state, PAGE_HITS, offset), uploadOf(state.upload)?.body, { signal, say }));
  }

  #count(answer) {
    this.received = this.pages === 1 ? answer.hits.length : this.received + answer.hits.length;
    this.hasMore = answer.more && answer.hits.length > 0;
    byId("more").hidden = !this.hasMore;
    const shown = this.grid.hits.length;
    const within = countFilters(this.state) ? " matching the filters" : "";
    byId("summary").textContent = shown ? `Top ${whole(shown)} of ${images(answer.candidates)}${within}` : "No images";
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

  // No search: the start page.
  #welcome() {
    this.#clear();
    this.grid.replace([]);
    this.#busy(false);
    byId("welcome").hidden = false;
    if (notTerms(this.state).length) notice("Add something to search for; “Not” only ranks images lower.");
  }

  #fail(error) {
    this.grid.replace([]);
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
