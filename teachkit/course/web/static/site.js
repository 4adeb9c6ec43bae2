// What the theme leaves to be done for those who listen to a page or go through it with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  // These say one thing and are named another.
  for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
  // What scrolls sideways must be reached with the keyboard.
  for (const box of document.querySelectorAll("div.highlight pre, .bd-content div.math, .pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
});
