// "Compare labels": probabilities of given labels for one image, as bars.

import { labels as compareLabels } from "./api.js";
import { byId, element } from "./words.js";

export class LabelForm {
  constructor() {
    this.id = "";
    this.running = null;
    byId("labels").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare();
    });
  }

  // Switches to another image; keeps the labels in the field.
  show(id) {
    this.running?.abort();
    this.id = id;
    this.#say("");
  }

  async #compare() {
    const names = [...new Set(byId("label-text").value.split(",").map((name) => name.trim()).filter(Boolean))];
    if (names.length < 2) {
      this.#say("Enter at least two labels, separated by commas.");
      return;
    }
    this.running?.abort();
    const running = (this.running = new AbortController());
    this.#say("Comparing …");
    try {
      const answer = await compareLabels(this.id, names, { signal: running.signal, say: (words) => this.#say(words) });
      if (running.signal.aborted) return;
      this.#say("Percentages compare these labels only; none may be right.");
      byId("label-list").replaceChildren(...answer.labels.map(barOf));
    } catch (error) {
      if (error.name !== "AbortError") this.#say(error.message);
    }
  }

  #say(words) {
    byId("label-note").textContent = words;
    byId("label-list").replaceChildren();
  }
}

function barOf({ label, probability, score }) {
  const fill = element("span", { className: "bar-fill" });
  fill.style.setProperty("--share", probability.toFixed(4));
  const percent = `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
  return element(
    "li",
    { title: `cosine ${score.toFixed(3)}` },
    element("span", { className: "bar-name" }, label),
    element("span", { className: "bar-track", "aria-hidden": "true" }, fill),
    element("span", { className: "number" }, percent),
  );
}
