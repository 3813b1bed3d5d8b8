// Numbers, dates and scores as people read them, and small helpers to build elements.

// The page speaks English; of its kinds, the one the browser prefers orders day and month.
const LANGUAGE = navigator.languages.find((language) => /^en\b/u.test(language)) ?? "en";
const WHOLE = new Intl.NumberFormat(LANGUAGE);
const DAY = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "long", timeZone: "UTC" });
const MINUTE = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "long", timeStyle: "short", timeZone: "UTC" });

export const whole = (number) => WHOLE.format(number);
export const images = (count) => `${whole(count)} ${count === 1 ? "image" : "images"}`;

// A camera's clock has no zone, so the text is shown as it was written: parsed and printed as if it were UTC.
export function moment(text) {
  const time = new Date(`${text.replace(/(Z|[+-]\d\d:?\d\d)$/u, "")}Z`);
  return Number.isNaN(time.getTime()) ? text : MINUTE.format(time);
}

export function day(text) {
  const time = new Date(`${text}T00:00:00Z`);
  return Number.isNaN(time.getTime()) ? text : DAY.format(time);
}

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

export function place(latitude, longitude) {
  const side = (value, plus, minus) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}

export const byId = (id) => document.getElementById(id);

// Element with properties and children. Texts become text nodes: nothing that comes from a server is parsed as HTML.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
