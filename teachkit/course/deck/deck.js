// Set the formulas, lay the slides out, then start reveal.js; window.deckReady is true at the end.
const pages = () => [...document.querySelectorAll(".reveal .page")];
const THINGS = ["picture", "explorer", "table", "code", "html"];
const isThing = (part) => THINGS.some((kind) => part.classList.contains(kind));

// How far the content of a page sticks out of it, in pixels of a slide of 1280×720: below and to the right,
// and of which cell it is.
function sticksOut(page) {
  const frame = page.getBoundingClientRect();
  const scale = frame.width / 1280 || 1;
  const [right, bottom] = [frame.right - 40 * scale, frame.bottom - 8 * scale];
  let found = { down: 0, across: 0, cell: "" };
  for (const part of page.querySelectorAll(".part, h1, h2, h3")) {
    const inner = [part, ...part.querySelectorAll("*")].filter((e) => !e.closest("mjx-assistive-mml, svg svg, .tk-says"));
    const boxes = inner.map((e) => e.getBoundingClientRect()).filter((b) => b.width && b.height);
    const hidden = inner.map((e) => (e.closest("svg") ? 0 : e.scrollWidth - e.clientWidth > 1 && e.clientWidth ? e.scrollWidth - e.clientWidth : 0));
    const down = Math.max(0, ...boxes.map((b) => b.bottom - bottom)) / scale;
    const across = Math.max(0, ...boxes.map((b) => (b.right - right) / scale), ...hidden);
    if (Math.max(down, across) > Math.max(found.down, found.across)) {
      found = { down, across, cell: part.dataset.cell ?? page.parentElement.dataset.cell };
    }
  }
  return found;
}

// The area of its pictures: of two layouts that fit, the one with the larger pictures is better.
const seen = (page) =>
  [...page.querySelectorAll("img")].reduce((sum, img) => {
    const box = img.getBoundingClientRect();
    const ratio = img.naturalWidth / img.naturalHeight || 1;
    return sum + Math.min(box.width, box.height * ratio) ** 2 / ratio;
  }, 0);

function arrange(page, layout, parts) {
  const body = page.querySelector(".body");
  page.classList.remove("rows", "columns", "even", "small");
  page.classList.add(...layout.split(" "));
  if (!layout.startsWith("columns")) return body.replaceChildren(...parts);
  const sides = [false, true].map((side) => {
    const column = Object.assign(document.createElement("div"), { className: "column" });
    column.append(...parts.filter((part) => isThing(part) === side));
    return column;
  });
  body.replaceChildren(...sides);
}

function layOut(page) {
  const parts = [...page.querySelectorAll(".part")];
  const things = parts.filter(isThing);
  const asked = page.dataset.layout;
  const both = things.length && things.length < parts.length && !page.classList.contains("title");
  let tries = both ? ["rows", "columns", "columns even"] : ["rows"];
  if (asked !== "auto" && both) tries = tries.filter((name) => name.startsWith(asked));
  tries.push(...tries.map((name) => `${name} small`));
  const scored = tries.map((layout, i) => {
    arrange(page, layout, parts);
    const { down, across } = sticksOut(page);
    return { layout, out: Math.round(Math.max(down, across)), area: seen(page) * (layout.endsWith("small") ? 0.5 : 1), i };
  });
  scored.sort((a, b) => a.out - b.out || b.area - a.area || a.i - b.i);
  arrange(page, scored[0].layout, parts);
}

// The keys come in the order of the cells, wherever a layout has put the parts.
function order(page) {
  [...page.querySelectorAll(".part.fragment")].forEach((part, i) => (part.dataset.fragmentIndex = i));
}

// The lecturer's window does not know MathJax: there, formulas are MathML.
function plainNotes() {
  for (const formula of document.querySelectorAll("aside.notes mjx-container")) {
    const math = formula.querySelector("mjx-assistive-mml > math");
    if (math) formula.replaceWith(math);
  }
}

// A vote in the hall makes the answer superfluous that a key would show.
document.addEventListener("teachkit-vote", ({ detail }) => {
  const answer = document.querySelector(`.answer[data-answers="${detail}"]`);
  answer?.style.setProperty("opacity", "0.35");
});

// What is wrong with the slides, for the command that makes them: a line each.
window.deckProblems = async () => {
  const found = [];
  for (const [i, section] of [...document.querySelectorAll(".reveal .slides > section")].entries()) {
    Reveal.slide(i);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const page = section.querySelector(".page");
    const about = { slide: i + 1, cell: section.dataset.cell, down: 0, across: 0 };
    const out = sticksOut(page);
    if (out.down > 1 || out.across > 1) found.push({ ...about, ...out, kind: "overflow" });
    if (!section.querySelector(".part")) found.push({ ...about, kind: "empty" });
    const wrong = section.querySelector("mjx-merror, [data-mjx-error]");
    if (wrong) found.push({ ...about, kind: "formula", words: wrong.textContent.slice(0, 60) });
  }
  return found;
};

async function start() {
  await MathJax.startup.promise;
  await MathJax.typesetPromise();
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  pages().forEach(order);
  pages().forEach(layOut);
  plainNotes();
  document.documentElement.classList.remove("typesetting");
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0, center: false, hash: true, transition: "none", controls: false,
    slideNumber: "c/t", pdfSeparateFragments: false, pdfMaxPagesPerSlide: 1,
    viewDistance: 2, plugins: [RevealNotes, RevealSearch, RevealZoom],
  });
  Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, () => document.documentElement.classList.toggle("dark"));
  window.deckReady = true;
}
// Questions and explorers come to life in a module of their own, before this event.
document.addEventListener("DOMContentLoaded", start);
