// Client of /api/v1: retries 429 and 503 after the announced time, turns errors into messages.

import { sentence } from "./words.js";

const API = new URL("../api/v1", import.meta.url).pathname; // also below the path prefix of a proxy
const MOST_RETRIES = 4;
const LONGEST_WAIT_S = 30;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

// JSON of a successful answer. say(words) is called before each retry of a 429 or 503.
export async function request(path, options) {
  const response = await accepted(API + path, options);
  return response.status === 204 ? null : response.json();
}

async function accepted(url, { signal, say, ...init } = {}) {
  for (let retry = 0; ; retry++) {
    const response = await answer(url, { signal, ...init });
    if (response.ok) return response;
    const error = await errorOf(response);
    const busy = response.status === 429 || (response.status === 503 && error.code !== "not_ready");
    if (!busy || retry === MOST_RETRIES) throw error;
    const announced = Number(response.headers.get("Retry-After"));
    const seconds = Math.min(announced > 0 ? announced : 2 ** retry, LONGEST_WAIT_S);
    say?.(`The server is busy; retrying in ${Math.ceil(seconds)} s.`);
    await pause(seconds, signal);
  }
}

async function answer(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not respond. Is “image-finder serve” still running?", { code: "unreachable" });
  }
}

async function errorOf(response) {
  const problem = await response.json().catch(() => ({}));
  const { detail = `The server answered with status ${response.status}.`, code = "", request_id: requestId = "" } = problem;
  return new ApiError(sentence(detail), { status: response.status, code, requestId });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, seconds * 1000);
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

// query: body of POST /search; image: File of its image term, or null.
export function search(query, image, options) {
  return request("/search", { method: "POST", body: formOf(query, image), ...options });
}

// Regions that raise an image's score for terms: {blob: overlay, peak: 0 if no region does}
export async function explanation(id, terms, image, options) {
  const body = formOf({ terms }, image);
  const response = await accepted(`${urlOf(id)}/explanation`, { method: "POST", body, ...options });
  return { blob: await response.blob(), peak: Number(response.headers.get("X-Peak-Contribution")) };
}

function formOf(query, image) {
  const form = new FormData();
  form.append("query", JSON.stringify(query));
  if (image) form.append("image", image, "image");
  return form;
}

// parameters: those of GET /images, as URLSearchParams
export const browse = (parameters, options) => request(`/images?${parameters}`, options);
export const examples = (options) => request("/examples", options);
export const facets = (options) => request("/facets", options);
export const info = (options) => request("/info", options);
// Whether this page may add folders to the library; key: printed by the server.
export const folders = (key) => request("/folders", { headers: { "X-Folder-Key": key } });
export const addFolder = (key, folder) =>
  request("/folders", {
    method: "POST",
    headers: { "X-Folder-Key": key, "Content-Type": "application/json" },
    body: JSON.stringify({ folder }),
  });
export const progress = (options) => request("/progress", options);
export const image = (id) => request(`/images/${encodeURIComponent(id)}`);

export function labels(id, names, options) {
  const headers = { "Content-Type": "application/json" };
  return request("/labels", { method: "POST", headers, body: JSON.stringify({ id, labels: names }), ...options });
}

export function openSession(token) {
  return request("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}

const urlOf = (id) => `${API}/images/${encodeURIComponent(id)}`;
// px: longer side. version: of the content, so that the browser keeps the thumbnail.
export const thumbnailUrl = (id, px, version = "") => `${urlOf(id)}/thumbnail?${new URLSearchParams({ px, ...(version && { v: version }) })}`;
export const versionOf = ({ thumbnail = "" }) => new URLSearchParams(thumbnail.split("?")[1]).get("v") ?? "";
export const viewUrl = (id) => `${urlOf(id)}/view`;
export const originalUrl = (id) => `${urlOf(id)}/original`;

export const archiveUrl = (ids) => `${API}/archive?${new URLSearchParams(ids.map((id) => ["id", id]))}`;

// Why an <img> failed to load, which the element does not reveal. Resolves to "" if it loads now.
export async function reasonOfMissing(url) {
  try {
    await accepted(url);
    return "";
  } catch (error) {
    return error.message;
  }
}
