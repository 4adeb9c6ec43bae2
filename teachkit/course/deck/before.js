// Before anything else on the page: light or dark, the keys, and how formulas are set.
const asked = new URLSearchParams(location.search);
const printing = asked.has("print-pdf");
if (asked.has("dark") && !printing) document.documentElement.classList.add("dark");

// A question or a slider keeps its keys. These three belong to the deck all the same: Escape leaves it,
// and the keys of a presenter's remote go on. Whoever listens on the window first, hears first.
window.addEventListener(
  "keydown",
  (event) => {
    const within = document.activeElement?.closest?.(".question, .explorer");
    const move = { PageDown: "next", PageUp: "prev", Escape: "" }[event.key];
    if (!within || move === undefined) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    document.activeElement.blur();
    if (move) Reveal[move]();
  },
  true,
);

window.MathJax = {
  tex: { inlineMath: [["$", "$"], ["\\(", "\\)"]], processEscapes: true, tags: "ams" },
  svg: { fontCache: "local" }, // a formula of the notes stands alone in the lecturer's window
  options: { enableMenu: false, ignoreHtmlClass: "question|table|code" },
  startup: { typeset: false },
};
