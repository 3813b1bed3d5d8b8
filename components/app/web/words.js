// Formatting of numbers and dates, and helpers to build elements.

// The page is in English; the preferred variant determines the date format.
const LANGUAGE = navigator.languages.find((language) => /^en\b/u.test(language)) ?? "en";
const WHOLE = new Intl.NumberFormat(LANGUAGE);
const DAY = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "long", timeZone: "UTC" });
const SHORT_DAY = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeZone: "UTC" });
const MINUTE = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "long", timeStyle: "short", timeZone: "UTC" });

export const whole = (number) => WHOLE.format(number);
export const images = (count) => `${whole(count)} ${count === 1 ? "image" : "images"}`;

// Camera times have no time zone: parsed and printed as UTC, so that they appear unchanged.
export function moment(text) {
  const time = new Date(`${text.replace(/(Z|[+-]\d\d:?\d\d)$/u, "")}Z`);
  return Number.isNaN(time.getTime()) ? text : MINUTE.format(time);
}

export function day(text, format = DAY) {
  const time = new Date(`${text}T00:00:00Z`);
  return Number.isNaN(time.getTime()) ? text : format.format(time);
}

export const shortDay = (text) => day(text, SHORT_DAY);

export function fileSize(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function coordinates(latitude, longitude) {
  const side = (value, plus, minus) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}

// Messages of the API start in lower case and have no full stop.
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/u.test(text) ? "" : "."}`;

export const byId = (id) => document.getElementById(id);

// Creates an element. Strings become text nodes: no data from the server is parsed as HTML.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function notice(words) {
  byId("notice").textContent = words;
  byId("notice").hidden = false;
}

export function button(words, properties, act) {
  const made = element("button", { type: "button", ...properties }, words);
  made.addEventListener("click", act);
  return made;
}
