// The state of the page as one plain object, and its conversion to the URL and to API requests; touches no element.

export const EMPTY = Object.freeze({
  text: "",
  not: "", // terms that lower the rank, separated by commas
  like: "", // id of an indexed image
  upload: "", // key of an uploaded image; kept in this tab only, not in the URL
  mix: 50, // weight of the image relative to the text, 5 to 95
  folders: [],
  since: "",
  until: "",
  cameras: [],
  minPx: "",
  orientation: "",
  hasGps: "",
  minScore: "",
  duplicates: "fold", // or "show"
});

const ORIENTATIONS = ["landscape", "portrait", "square"];
const ID = /^[0-9a-f]{16}$/;
const DATE = /^\d{4}-\d{2}-\d{2}$/;
const NOT_WORDS = /(^|\s)-(?:"([^"]+)"|([^\s"-]\S*))/gu;

// "beach -people" -> {text: "beach", not: ["people"]}; hyphens inside words (t-shirt) have no effect.
export function splitWords(text) {
  const not = [];
  const rest = text.replace(NOT_WORDS, (_, space, quoted, word) => {
    not.push((quoted ?? word).trim());
    return space;
  });
  return { text: rest.replace(/\s+/gu, " ").trim(), not: not.filter(Boolean) };
}

export function notTerms(state) {
  const listed = state.not.split(",").map((word) => word.trim()).filter(Boolean);
  return [...new Set([...splitWords(state.text).not, ...listed])];
}

export const hasImage = (state) => Boolean(state.like || state.upload);
export const isSearch = (state) => Boolean(splitWords(state.text).text) || hasImage(state);

export function countFilters(state) {
  const single = [state.since || state.until, state.minPx, state.orientation, state.hasGps, state.minScore];
  return state.folders.length + state.cameras.length + single.filter(Boolean).length;
}

// The filters of `state`; everything else is reset.
export function filtersOnly(state) {
  const { folders, since, until, cameras, minPx, orientation, hasGps, minScore, duplicates } = state;
  return { ...EMPTY, folders, since, until, cameras, minPx, orientation, hasGps, minScore, duplicates };
}

export function withoutFilters(state) {
  const { text, not, like, upload, mix, duplicates } = state;
  return { ...EMPTY, text, not, like, upload, mix, duplicates };
}

// The URL has the parameters of GET /search, and `mix` and `view` of the page.
export function toAddress(state, view = "") {
  const address = new URLSearchParams();
  const put = (name, value) => value && address.append(name, value);
  put("q", splitWords(state.text).text);
  notTerms(state).forEach((word) => put("not", word));
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
  if (state.duplicates === "show") put("duplicates", "show");
  put("view", view);
  const words = address.toString();
  return words ? `?${words}` : location.pathname;
}

// Malformed parameters are dropped, so that no link starts the page with an error.
export function fromAddress(words) {
  const address = new URLSearchParams(words);
  const fitting = (name, fits) => (fits(address.get(name) ?? "") ? address.get(name) : "");
  const number = (low, high) => (value) => value.trim() !== "" && Number(value) >= low && Number(value) <= high;
  const mix = Number(address.get("mix") ?? EMPTY.mix);
  return {
    text: address.getAll("q").join(" "), // the page has one field for all texts
    not: address.getAll("not").join(", "),
    like: fitting("like", (value) => ID.test(value)),
    upload: "",
    mix: mix >= 5 && mix <= 95 ? Math.round(mix / 5) * 5 : EMPTY.mix,
    folders: [...new Set(address.getAll("folder"))],
    since: fitting("since", (value) => DATE.test(value)),
    until: fitting("until", (value) => DATE.test(value)),
    cameras: [...new Set(address.getAll("camera"))],
    minPx: fitting("min_px", number(1, 1_000_000)),
    orientation: fitting("orientation", (value) => ORIENTATIONS.includes(value)),
    hasGps: fitting("has_gps", (value) => value === "true" || value === "false"),
    minScore: fitting("min_score", number(-1, 1)),
    duplicates: address.get("duplicates") === "show" ? "show" : "fold",
  };
}

export const viewOfAddress = (words) => {
  const id = new URLSearchParams(words).get("view") ?? "";
  return ID.test(id) ? id : "";
};

// Body of POST /search for k results after `offset`.
export function toQuery(state, k, offset) {
  const { text } = splitWords(state.text);
  const both = Boolean(text) && hasImage(state);
  const share = state.mix / 100;
  const terms = [];
  if (text) terms.push({ text, weight: both ? 1 - share : 1 });
  if (state.like) terms.push({ like: state.like, weight: both ? share : 1 });
  if (state.upload) terms.push({ image: "image", weight: both ? share : 1 });
  const query = { terms, filters: toFilters(state), k, offset, duplicates: state.duplicates };
  query.not = notTerms(state).map((word) => ({ text: word }));
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
