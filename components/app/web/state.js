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
  name: "", // part of the file name
  minScore: "",
  duplicates: "fold", // or "show"
  order: "", // or "newest" or "oldest"; "": best match first, without a query newest first
});

const ID = /^[0-9a-f]{16}$/;
const isDate = (value) => /^\d{4}-\d{2}-\d{2}$/.test(value);
const isNumber = (low, high) => (value) => value.trim() !== "" && Number(value) >= low && Number(value) <= high;
// Filters with one value: field of the state -> parameter of GET /search, values that an address may hold, form in a body
const SINGLE = {
  since: ["since", isDate, String],
  until: ["until", isDate, String],
  minPx: ["min_px", isNumber(1, 1_000_000), Number],
  orientation: ["orientation", (value) => ["landscape", "portrait", "square"].includes(value), String],
  hasGps: ["gps", (value) => value === "true" || value === "false", (value) => value === "true"],
  name: ["name", (value) => Boolean(value.trim()) && value.length <= 255, String],
  minScore: ["min_score", isNumber(-1, 1), Number],
};
const LISTS = { folders: "folder", cameras: "camera" };
const FILTERS = [...Object.keys(LISTS), ...Object.keys(SINGLE)];
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

const fieldsOf = (state, names) => Object.fromEntries(names.map((name) => [name, state[name]]));

export function countFilters(state) {
  const single = [state.since || state.until, state.minPx, state.orientation, state.hasGps, state.name, state.minScore];
  return state.folders.length + state.cameras.length + single.filter(Boolean).length;
}

// The filters of `state`; everything else is reset.
export const filtersOnly = (state) => ({ ...EMPTY, ...fieldsOf(state, [...FILTERS, "duplicates", "order"]) });
export const withoutFilters = (state) => ({ ...state, ...fieldsOf(EMPTY, FILTERS) });

// The URL has the parameters of GET /search, and `mix` and `view` of the page.
export function toAddress(state, view = "") {
  const address = new URLSearchParams();
  const put = (name, value) => value && address.append(name, value);
  put("q", splitWords(state.text).text);
  notTerms(state).forEach((word) => put("not", word));
  put("like", state.like);
  if (hasImage(state) && state.mix !== EMPTY.mix) put("mix", String(state.mix));
  for (const [field, name] of Object.entries(LISTS)) state[field].forEach((value) => put(name, value));
  for (const [field, [name]] of Object.entries(SINGLE)) put(name, state[field]);
  if (state.duplicates === "show") put("duplicates", "show");
  put("order", state.order);
  put("view", view);
  const words = address.toString();
  return words ? `?${words}` : location.pathname;
}

// Address of an image alone.
export const addressOf = (id) => `?${new URLSearchParams({ view: id })}`;

// Malformed parameters are dropped, so that no link starts the page with an error.
export function fromAddress(words) {
  const address = new URLSearchParams(words);
  const fitting = (name, fits) => (fits(address.get(name) ?? "") ? address.get(name) : "");
  const mix = Number(address.get("mix") ?? EMPTY.mix);
  const single = Object.entries(SINGLE).map(([field, [name, fits]]) => [field, fitting(name, fits)]);
  const lists = Object.entries(LISTS).map(([field, name]) => [field, [...new Set(address.getAll(name))]]);
  return {
    ...Object.fromEntries([...single, ...lists]),
    text: address.getAll("q").join(" "), // the page has one field for all texts
    not: address.getAll("not").join(", "),
    like: fitting("like", (value) => ID.test(value)),
    upload: "",
    mix: mix >= 5 && mix <= 95 ? Math.round(mix / 5) * 5 : EMPTY.mix,
    duplicates: address.get("duplicates") === "show" ? "show" : "fold",
    order: fitting("order", (value) => value === "newest" || value === "oldest"),
  };
}

export const viewOfAddress = (words) => {
  const id = new URLSearchParams(words).get("view") ?? "";
  return ID.test(id) ? id : "";
};

// Parameters of GET /images: the filters of `state`, by which images are browsed without a query.
export function toBrowse(state, k, cursor) {
  const parameters = new URLSearchParams({ k });
  for (const [field, name] of Object.entries(LISTS)) state[field].forEach((value) => parameters.append(name, value));
  for (const [field, [name]] of Object.entries(SINGLE)) if (state[field] && field !== "minScore") parameters.append(name, state[field]);
  if (state.order) parameters.append("order", state.order);
  if (cursor) parameters.append("cursor", cursor);
  return parameters;
}

// Body of POST /search for k results after `offset`.
export function toQuery(state, k, offset) {
  const { text } = splitWords(state.text);
  const both = Boolean(text) && hasImage(state);
  const share = state.mix / 100;
  const terms = [];
  if (text) terms.push({ text, weight: both ? 1 - share : 1 });
  if (state.like) terms.push({ like: state.like, weight: both ? share : 1 });
  if (state.upload) terms.push({ image: "image", weight: both ? share : 1 });
  const chosen = Object.entries(SINGLE).filter(([field]) => state[field]);
  const values = Object.fromEntries(chosen.map(([field, [name, , form]]) => [name, form(state[field])]));
  const lists = Object.fromEntries(Object.entries(LISTS).map(([field, name]) => [name, state[field]]));
  return { terms, not: notTerms(state), ...lists, ...values, k, offset, duplicates: state.duplicates, order: state.order || "match" };
}
