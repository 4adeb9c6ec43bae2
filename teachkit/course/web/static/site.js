// What the theme leaves to be done for those who listen to a page or go through it with the keyboard.
// On a disk the search cannot fetch pages for its excerpts: it lists titles.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

document.addEventListener("DOMContentLoaded", async () => {
  // These say one thing and are named another.
  for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
  for (const summary of document.querySelectorAll("details.hide summary")) summary.removeAttribute("aria-label");
  await window.MathJax?.startup?.promise; // a formula has its width when it is drawn
  // What scrolls sideways must be reached with the keyboard.
  const reach = () => {
    for (const box of document.querySelectorAll("pre, div.math, mjx-container, .pst-scrollable-table-container")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else if (box.tabIndex === 0) box.removeAttribute("tabindex");
    }
  };
  reach();
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true); // what was folded has no width
});
