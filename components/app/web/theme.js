// Runs before the first paint (a plain script, not a module) to avoid a flash of the wrong theme.
(() => {
  "use strict";
  const KEY = "image-finder-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // storage is disabled: a choice lasts until the page is closed
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;

  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("toggle-theme");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(KEY, document.documentElement.dataset.theme);
      } catch {
        // see above
      }
      show();
    });
    dark.addEventListener("change", show);
    show();
  });
})();
