// Set the formulas, lay the slides out, then start reveal.js; window.deckReady is true at the end.
const pages = () => [...document.querySelectorAll(".reveal .page")];
const PICTURES = ["picture", "explorer"];
const THINGS = [...PICTURES, "table", "code", "html"];
const is = (part, kinds) => kinds.some((kind) => part.classList.contains(kind));
const ROOM = { question: 150, text: 24 }; // px that larger text must leave free: a vote is answered below

// How far the content of a page sticks out of it, in pixels of a slide of 1280×720: below and to the right,
// and of which cell it is.
function sticksOut(page, spare = 0) {
  const frame = page.getBoundingClientRect();
  const scale = frame.width / 1280 || 1;
  const [right, bottom] = [frame.right - 40 * scale, frame.bottom - (8 + spare) * scale];
  let found = { down: 0, across: 0, cell: "" };
  for (const part of page.querySelectorAll(".part, h1, h2, h3")) {
    const inner = [part, ...part.querySelectorAll("*")].filter((e) => !e.closest("mjx-assistive-mml, svg svg, .tk-says"));
    const boxes = inner.map((e) => e.getBoundingClientRect()).filter((b) => b.width && b.height);
    const cut = inner.filter((e) => e.clientWidth && !e.closest("svg") && e.tagName !== "INPUT" && getComputedStyle(e).overflowX !== "visible");
    const hidden = cut.map((e) => e.scrollWidth - e.clientWidth);
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

const LOOKS = ["rows", "columns", "even", "beside", "small", "medium", "large"];

function arrange(page, layout, parts) {
  const body = page.querySelector(".body");
  page.classList.remove(...LOOKS);
  page.classList.add(...layout.split(" "));
  if (!layout.startsWith("columns")) return body.replaceChildren(...parts);
  const kinds = layout.includes("beside") ? PICTURES : THINGS; // tables below the text, or the picture
  const sides = [false, true].map((side) => {
    const column = Object.assign(document.createElement("div"), { className: "column" });
    column.append(...parts.filter((part) => is(part, kinds) === side));
    return column;
  });
  body.replaceChildren(...sides);
}

// The layouts to try: text above or beside the things; larger text where it takes no room from a picture,
// smaller tables where nothing else fits.
function layouts(page, parts) {
  const things = parts.filter((part) => is(part, THINGS));
  const pictures = parts.filter((part) => is(part, PICTURES));
  let tries = ["rows"];
  if (page.classList.contains("title")) return tries;
  if (things.length && things.length < parts.length) tries.push("columns", "columns even");
  if (pictures.length && pictures.length < things.length) tries.push("columns beside", "columns beside even");
  const asked = tries.filter((name) => name.startsWith(page.dataset.layout));
  if (asked.length) tries = asked;
  const with_ = (size) => tries.map((name) => `${name} ${size}`);
  return [...with_("large"), ...with_("medium"), ...tries, ...with_("small")];
}

function layOut(page) {
  const parts = [...page.querySelectorAll(".part")];
  const spare = parts.some((part) => is(part, ["question"])) ? ROOM.question : ROOM.text;
  const scored = layouts(page, parts).map((layout, i) => {
    arrange(page, layout, parts);
    const { down, across } = sticksOut(page, /large|medium/.test(layout) ? spare : 0);
    const area = seen(page) * (layout.endsWith("small") ? 0.8 : 1);
    return { layout, out: Math.round(Math.max(down, across)), area, i };
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

// A vote on the page says what is right: then no key need show it.
document.addEventListener("teachkit-vote", ({ detail }) => {
  const answer = document.querySelector(`.answer[data-answers="${detail}"]`);
  const section = answer?.closest("section");
  answer?.remove();
  if (section) Reveal.syncFragments(section);
});

// What is said after a vote gets the room that it needs, as soon as it stands there.
document.addEventListener("click", ({ target }) => {
  const page = target.closest?.(".question") && target.closest(".page");
  if (page) requestAnimationFrame(() => makeRoom(page));
});
function makeRoom(page) {
  page.classList.remove("tight", "alone");
  for (const name of ["tight", "alone"]) if (sticksOut(page).down > 1) page.classList.add(name);
}

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
