// What is searched for, as one plain object, and its way to the address and to the API; touches no element.

export const EMPTY = Object.freeze({
  text: "",
  without: "",
  like: "", // id of an image of the index
  upload: "", // key of an image given by the user: kept in this tab only, an address cannot carry it
  mix: 50, // weight of the image against the words, 5 to 95
  folders: [],
  since: "",
  until: "",
  cameras: [],
  minPx: "",
  orientation: "",
  hasGps: "",
  minScore: "",
  all: false,
});

const ORIENTATIONS = ["landscape", "portrait", "square"];
const ID = /^[0-9a-f]{16}$/;
const DATE = /^\d{4}-\d{2}-\d{2}$/;
const NEGATIVE = /(^|\s)-(?:"([^"]+)"|([^\s"-]\S*))/gu;

// "beach -people" -> {text: "beach", without: ["people"]}; a hyphen inside a word (t-shirt) is left alone.
export function splitWords(text) {
  const without = [];
  const kept = text.replace(NEGATIVE, (_, space, quoted, word) => {
    without.push((quoted ?? word).trim());
    return space;
  });
  return { text: kept.replace(/\s+/gu, " ").trim(), without: without.filter(Boolean) };
}

export function negatives(state) {
  const listed = state.without.split(",").map((word) => word.trim()).filter(Boolean);
  return [...new Set([...splitWords(state.text).without, ...listed])];
}

export const hasImage = (state) => Boolean(state.like || state.upload);
export const isSearch = (state) => Boolean(splitWords(state.text).text) || hasImage(state);

export function countFilters(state) {
  const single = [state.since || state.until, state.minPx, state.orientation, state.hasGps, state.minScore];
  return state.folders.length + state.cameras.length + single.filter(Boolean).length;
}

// Filters of `state` with everything else as it was at the start.
export function filtersOnly(state) {
  const { folders, since, until, cameras, minPx, orientation, hasGps, minScore, all } = state;
  return { ...EMPTY, folders, since, until, cameras, minPx, orientation, hasGps, minScore, all };
}

export function withoutFilters(state) {
  const { text, without, like, upload, mix, all } = state;
  return { ...EMPTY, text, without, like, upload, mix, all };
}

// The address uses the words of GET /search; `mix` and `view` are the page's own.
export function toAddress(state, view = "") {
  const address = new URLSearchParams();
  const put = (name, value) => value && address.append(name, value);
  put("q", splitWords(state.text).text);
  negatives(state).forEach((word) => put("not", word));
  put("like", state.like);
  if (hasImage(state) && state.mix !== EMPTY.mix) put("mix", String(state.mix));
  state.folders.forEach((folder) => put("folder", folder));
  put("since", state.since);
  put("until", state.until);
  state.cameras.forEach((camera) => put("camera", camera));
  put("min_px", state.minPx);
  put("orientation", state.orientation);
  put("has_gps", state.hasGps);
  put("min_score", state.minScore);
  if (state.all) put("duplicates", "show");
  put("view", view);
  const words = address.toString();
  return words ? `?${words}` : location.pathname;
}

// An address may come from anybody: whatever is malformed is dropped, so that the page never starts with an error.
export function fromAddress(words) {
  const address = new URLSearchParams(words);
  const fitting = (name, fits) => (fits(address.get(name) ?? "") ? address.get(name) : "");
  const number = (low, high) => (value) => value.trim() !== "" && Number(value) >= low && Number(value) <= high;
  const mix = Number(address.get("mix") ?? EMPTY.mix);
  return {
    text: address.getAll("q").join(" "), // one field: several texts, which the API weighs one by one, become one
    without: address.getAll("not").join(", "),
    like: fitting("like", (value) => ID.test(value)),
    upload: "",
    mix: mix >= 5 && mix <= 95 ? Math.round(mix / 5) * 5 : EMPTY.mix,
    folders: [...new Set(address.getAll("folder"))],
    since: fitting("since", (value) => DATE.test(value)),
    until: fitting("until", (value) => DATE.test(value)),
    cameras: [...new Set(address.getAll("camera"))],
    minPx: fitting("min_px", number(1, 100_000)),
    orientation: fitting("orientation", (value) => ORIENTATIONS.includes(value)),
    hasGps: fitting("has_gps", (value) => value === "true" || value === "false"),
    minScore: fitting("min_score", number(-1, 1)),
    all: address.get("duplicates") === "show",
  };
}

export const viewOfAddress = (words) => {
  const id = new URLSearchParams(words).get("view") ?? "";
  return ID.test(id) ? id : "";
};

// What POST /search takes for k results from `offset` on.
export function toQuery(state, k, offset) {
  const { text } = splitWords(state.text);
  const both = Boolean(text) && hasImage(state);
  const share = state.mix / 100;
  const terms = [];
  if (text) terms.push({ text, weight: both ? 1 - share : 1 });
  if (state.like) terms.push({ like: state.like, weight: both ? share : 1 });
  if (state.upload) terms.push({ image: "image", weight: both ? share : 1 });
  const query = { terms, filters: toFilters(state), k, offset, duplicates: state.all ? "show" : "fold" };
  query.not = negatives(state).map((word) => ({ text: word }));
  if (state.minScore) query.min_score = Number(state.minScore);
  return query;
}

function toFilters(state) {
  const filters = {};
  if (state.folders.length) filters.folders = state.folders;
  if (state.since) filters.since = state.since;
  if (state.until) filters.until = state.until;
  if (state.cameras.length) filters.cameras = state.cameras;
  if (state.minPx) filters.min_px = Number(state.minPx);
  if (state.orientation) filters.orientation = state.orientation;
  if (state.hasGps) filters.has_gps = state.hasGps === "true";
  return filters;
}
