// Questions of five kinds, in a widget of JupyterLab and on a plain page: asked, judged and explained
// here alone. What a question is, teachkit/show/questions.py says (its `front`).

// An element with attributes and children; text goes in as text, never as HTML.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "polyline", "circle", "text", "title"].includes(tag);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const short = (value) => String(Number(Number(value).toPrecision(3)));
const mark = (right) => (right ? "✓ " : "✗ ");
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
// Each view has names of its own; every widget loads this file anew, so the page counts them.
const count = () => (window.teachkitViews = (window.teachkitViews ?? 0) + 1);

// Radio buttons or checkboxes, one an option, as `read` and `write` of the texts that are chosen.
function boxes(type, options, name) {
  const inputs = options.map((option) => make("input", { type, name, value: option.text }));
  const rows = options.map((option, i) =>
    make("div", { class: "tk-q-option" }, make("label", {}, inputs[i], make("span", {}, option.text)), make("div", { class: "tk-q-why" })),
  );
  return {
    rows,
    inputs,
    read: () => inputs.filter((input) => input.checked).map((input) => input.value),
    write: (texts) => inputs.forEach((input) => (input.checked = texts.includes(input.value))),
    why: (i, text) => (rows[i].lastChild.textContent = text),
  };
}

// Each kind gives: nodes, inputs, read() (undefined: nothing yet), write(answer) (false: it does not fit),
// words(answer), judge(answer) with `right` and the sentences `says`, and clear().
const kinds = {
  choice(question, name) {
    const box = boxes("radio", question.options, name);
    return {
      nodes: box.rows,
      inputs: box.inputs,
      missing: "Choose an answer first.",
      read: () => box.read()[0],
      write: (answer) => (box.write([answer]), box.read().length === 1),
      words: (answer) => answer,
      judge(answer) {
        const option = question.options.find((o) => o.text === answer);
        return { right: option.right, says: [option.why] };
      },
      clear: () => box.write([]),
    };
  },

  several(question, name) {
    const box = boxes("checkbox", question.options, name);
    const right = question.options.filter((o) => o.right).map((o) => o.text);
    return {
      nodes: [make("p", { class: "tk-q-hint" }, "More than one is right. Choose all that are."), ...box.rows],
      inputs: box.inputs,
      missing: "Choose at least one answer first.",
      read: () => (box.read().length ? box.read() : undefined),
      write: (answer) => (box.write(answer), box.read().length === answer.length),
      words: (answer) => answer.join("; "),
      judge(answer) {
        let good = 0;
        question.options.forEach((o, i) => {
          const hit = o.right === answer.includes(o.text);
          good += hit;
          const words = o.right ? ["This one belongs.", "Rightly chosen."] : ["This one does not belong.", "Rightly left out."];
          box.why(i, `${mark(hit)}${words[Number(hit)]} ${o.why}`);
        });
        const all = question.options.length;
        return { right: same([...answer].sort(), [...right].sort()), says: [`${good} of ${all} judged rightly; each has its reason above.`] };
      },
      clear: () => (box.write([]), question.options.forEach((_, i) => box.why(i, ""))),
    };
  },

  number(question, name) {
    // A number field would drop a comma or a slash in silence, and lock in what was never meant.
    const input = make("input", { type: "text", inputmode: "decimal", autocomplete: "off", class: "tk-q-number", name, id: name });
    const typed = () => Number(input.value.trim().replace("−", "-") || NaN);
    const near = (value, target) =>
      Math.abs(value - target) <= question.tolerance * (question.relative ? Math.abs(target) : 1) * (1 + 1e-9);
    const wrong = (value) => {
      const known = question.typical.find((t) => near(value, t.value));
      if (known) return [known.why];
      const ratio = value / question.answer; // what can be said of any number
      const close = (factor) => Math.abs(ratio / factor - 1) < 0.02;
      const factor = [2, 10, 100, 1000].find((f) => close(f) || close(1 / f));
      const size = factor && `Your number is ${factor} times too ${ratio > 1 ? "large" : "small"}.`;
      return [close(-1) ? "The size is right, the sign is not." : size, question.wrong].filter(Boolean);
    };
    return {
      nodes: [make("p", {}, make("label", { for: name }, "Your number: "), input, question.unit && ` ${question.unit}`)],
      inputs: [input],
      enter: true,
      missing: "Type a number first, such as 0.5 or 2000: with a point and without a comma.",
      read: () => (Number.isFinite(typed()) ? typed() : undefined),
      write: (answer) => ((input.value = answer), Number.isFinite(typed())),
      words: (answer) => `${answer} ${question.unit}`.trim(),
      judge: (answer) =>
        near(answer, question.answer)
          ? { right: true, says: [question.right] }
          : { right: false, says: wrong(answer) },
      clear: () => (input.value = ""),
    };
  },

  order(question, name, tell) {
    const list = make("ol", { class: "tk-q-order" });
    const inputs = [];
    const texts = () => [...list.children].map((row) => row.dataset.text);
    function move(row, by, button) {
      const other = by < 0 ? row.previousElementSibling : row.nextElementSibling;
      if (!other) return;
      by < 0 ? other.before(row) : other.after(row);
      ends();
      (button.disabled ? row.querySelector("button:not(:disabled)") : button).focus();
      tell(`${row.dataset.text} is now number ${texts().indexOf(row.dataset.text) + 1} of ${list.children.length}.`);
    }
    const ends = () =>
      [...list.children].forEach((row, i, all) => {
        const [up, down] = row.querySelectorAll("button");
        [up.disabled, down.disabled] = [list.locked || i === 0, list.locked || i === all.length - 1];
      });
    const rows = question.options.map((option) => {
      const row = make("li", { "data-text": option.text });
      const button = (words, sign, by) =>
        make("button", { type: "button", "aria-label": `Move ${words}: ${option.text}`, title: `Move ${words}`, onclick: (e) => move(row, by, e.currentTarget) }, sign);
      row.append(make("span", { class: "tk-q-item" }, option.text), button("up", "↑", -1), button("down", "↓", 1), make("div", { class: "tk-q-why" }));
      return row;
    });
    list.append(...rows);
    ends();
    const why = (text) => rows.forEach((row, i) => (row.lastChild.textContent = text && question.options[i].why));
    const begin = question.options.map((o) => o.text);
    const write = (answer) => {
      if (!same([...answer].sort(), [...begin].sort())) return false;
      list.append(...answer.map((text) => rows[begin.indexOf(text)]));
      ends();
      return true;
    };
    return {
      nodes: [make("p", { class: "tk-q-hint" }, "Put these in order with the buttons."), list],
      inputs,
      lock: (yes) => ((list.locked = yes), ends()),
      read: texts,
      write,
      words: (answer) => answer.join(", then "),
      judge(answer) {
        const places = answer.map((text) => question.options.find((o) => o.text === text).place);
        const right = places.every((place, i) => i === 0 || places[i - 1] <= place);
        why(true);
        return { right, says: right ? [question.right] : [question.wrong, `In order: ${question.in_words}.`] };
      },
      clear: () => (write(begin), why("")),
    };
  },

  curve(question, name) {
    const chart = axes(question);
    const scale = (y) => (question.log ? Math.log10(y) : y);
    const back = (v) => (question.log ? 10 ** v : v);
    const [low, high] = [scale(question.low), scale(question.high)];
    const at = (x) => `${question.ylabel} at ${question.xlabel} ${x}`;
    let moved = false;
    const inputs = question.x.map((x) =>
      make("input", { type: "range", min: low, max: high, step: (high - low) / 100, name, "aria-label": at(x), oninput: () => ((moved = true), draw()) }),
    );
    const shown = inputs.map(() => make("output", {}));
    const values = () => inputs.map((input) => Number(short(back(input.valueAsNumber))));
    function draw() {
      values().forEach((y, i) => {
        shown[i].textContent = short(y);
        inputs[i].setAttribute("aria-valuetext", short(y));
      });
      chart.line("you", values(), "you");
    }
    const set = (ys) => (inputs.forEach((input, i) => (input.value = scale(ys[i]))), draw());
    const rest = () => ((moved = false), chart.line("truth", null), set(inputs.map(() => back((low + high) / 2))));
    chart.dragged((i, share) => {
      if (inputs[i].disabled) return;
      inputs[i].value = low + share * (high - low);
      inputs[i].dispatchEvent(new Event("input"));
    });
    const off = (a, b) => Math.max(...a.map((y, i) => Math.abs(scale(y) - scale(b[i])))) / (high - low);
    rest();
    const rows = question.x.map((x, i) => make("label", { class: "tk-q-range" }, make("span", {}, `at ${x}`), inputs[i], shown[i]));
    return {
      nodes: [make("p", { class: "tk-q-hint" }, question.x.length > 1 ? "Drag the points, or move the sliders below." : "Drag the point, or move the slider below."), chart.svg, make("div", { class: "tk-q-ranges" }, ...rows)],
      inputs,
      missing: "Draw your answer first: move a point.",
      read: () => (moved ? values() : undefined),
      write: (answer) => answer.length === inputs.length && (set(answer), (moved = true)),
      words: (answer) => `${answer.map(short).join(", ")} at ${question.x.join(", ")}`,
      judge(answer) {
        chart.line("truth", question.truth, "measured");
        if (off(answer, question.truth) <= question.tolerance * (1 + 1e-9)) return { right: true, says: [question.right] };
        const nearest = (lines) => lines.reduce((a, b) => (off(answer, b.y) < off(answer, a.y) ? b : a));
        const known = nearest(question.typical);
        const like = off(answer, known.y) < Math.min(0.25, off(answer, question.truth));
        return { right: false, says: [like ? known.why : question.wrong, `Measured: ${question.x.map((x, i) => `${short(question.truth[i])} at ${x}`).join(", ")}.`] };
      },
      clear: rest,
    };
  },
};

// Axes to draw lines into: the x of the question, its range of y, and the lines that are known.
function axes(question) {
  const [W, H, left, right, top, bottom] = [520, 300, 64, 96, 14, 52];
  const scale = (y) => (question.log ? Math.log10(y) : y);
  const number = question.x.every((x) => typeof x === "number");
  const places = question.x.map((x, i) => (!number ? i : question.xlog ? Math.log10(x) : x));
  const [x0, x1] = [Math.min(...places), Math.max(...places)];
  const px = places.map((p) => left + 20 + (x1 > x0 ? (p - x0) / (x1 - x0) : 0.5) * (W - left - right - 40));
  const share = (y) => (scale(y) - scale(question.low)) / (scale(question.high) - scale(question.low));
  const py = (y) => H - bottom - share(y) * (H - top - bottom);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, class: "tk-q-axes", role: "img", "aria-label": `${question.ylabel} against ${question.xlabel}` });
  svg.append(make("line", { x1: left, x2: left, y1: top, y2: H - bottom, class: "tk-q-axis" }), make("line", { x1: left, x2: W - right, y1: H - bottom, y2: H - bottom, class: "tk-q-axis" }));
  for (const y of ticks(question)) {
    svg.append(make("line", { x1: left, x2: W - right, y1: py(y), y2: py(y), class: "tk-q-grid" }));
    svg.append(make("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, question.log ? power(y) : short(y)));
  }
  question.x.forEach((x, i) => svg.append(make("text", { x: px[i], y: H - bottom + 18, "text-anchor": "middle" }, String(x))));
  svg.append(make("text", { x: (left + W - right) / 2, y: H - 10, "text-anchor": "middle" }, question.xlabel));
  svg.append(make("text", { x: 14, y: (top + H - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + H - bottom) / 2})` }, question.ylabel));
  const lines = {};
  const ends = {}; // labels of lines that end at one place are moved apart
  function line(name, ys, label) {
    lines[name]?.remove();
    delete ends[name];
    if (!ys) return;
    const points = ys.map((y, i) => [px[i], py(y)]);
    let end = points.at(-1)[1];
    while (Object.values(ends).some((other) => Math.abs(other - end) < 14)) end += 14;
    ends[name] = end;
    lines[name] = make("g", { class: `tk-q-line tk-q-${name}` }, make("polyline", { points: points.map((p) => p.join(",")).join(" ") }), ...points.map(([cx, cy]) => make("circle", { cx, cy, r: { you: 6, truth: 9 }[name] ?? 3 })), make("text", { x: px.at(-1) + 14, y: end + 4 }, label));
    name === "you" ? svg.append(lines[name]) : svg.prepend(lines[name]);
  }
  question.known.forEach((known, i) => line(`known${i}`, known.y, known.label));
  return {
    svg,
    line,
    // Call moved(i, share of the height) while a pointer is held down; it takes the nearest x.
    dragged(moved) {
      let held = null;
      const follow = (event) => {
        const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        held ??= px.reduce((best, x, i) => (Math.abs(x - point.x) < Math.abs(px[best] - point.x) ? i : best), 0);
        moved(held, Math.min(1, Math.max(0, (H - bottom - point.y) / (H - top - bottom))));
      };
      svg.addEventListener("pointerdown", (event) => {
        svg.setPointerCapture(event.pointerId);
        follow(event);
      });
      svg.addEventListener("pointermove", (event) => held !== null && follow(event));
      for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (held = null));
    },
  };
}

// 10⁻⁵ for 0.00001.
function power(y) {
  const e = Math.round(Math.log10(y));
  return Math.abs(e) < 3 ? short(y) : `10${[...String(e)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
}

// Round numbers along the y axis; powers of ten where it is logarithmic.
function ticks({ low, high, log }) {
  const found = [];
  if (log) {
    for (let e = Math.ceil(Math.log10(low) - 1e-9); e <= Math.log10(high) + 1e-9; e++) found.push(10 ** e);
    return found;
  }
  const rough = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * unit).find((s) => s >= rough * 0.99);
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) found.push(k * step);
  return found;
}

// Put a question into an element. `first` is the vote of an earlier session, if there is one; keep(vote)
// is told of the first vote, and once more when its reason is given. Gives back say(text): a word on
// what becomes of the vote.
function mountQuestion(el, question, { first = null, keep = () => {} } = {}) {
  const name = `teachkit-${question.name}-${count()}`;
  const live = () => make("div", { role: "status", "aria-live": "polite", class: "tk-q-says" });
  const [says, reasonSays, kept] = [live(), live(), make("p", { class: "tk-q-kept", role: "status" })];
  const tell = (text) => (says.replaceChildren(text), (says.className = "tk-q-says"));
  const kind = kinds[question.kind](question, name, tell);
  const button = (text, onclick) => make("button", { type: "button", class: "tk-q-button", onclick }, text);
  const lockIn = make("button", { class: "tk-q-button", type: kind.enter ? "submit" : "button", onclick: (e) => (e.preventDefault(), guess()) }, "Lock in my answer");
  const again = button("Try again", () => reset());
  const guessBox = make("fieldset", {}, make("legend", {}, question.text), ...kind.nodes);
  const reasons = question.reason && boxes("radio", question.reason.options, `${name}-why`);
  const lockReason = button("Lock in my reason", () => reason());
  const reasonBox =
    reasons &&
    make("div", { class: "tk-q-second", hidden: "" }, make("fieldset", {}, make("legend", {}, question.reason.text), ...reasons.rows), make("p", {}, lockReason), reasonSays);
  const box = make("form", { class: "tk-q-question", "data-asks": question.name, tabindex: "-1", onsubmit: (e) => e.preventDefault() }, guessBox, make("p", { class: "tk-q-buttons" }, lockIn, again), says, reasonBox, kept);

  const shut = (inputs, yes) => inputs.forEach((input) => (input.disabled = yes));
  const verdict = (where, right, sentences) => {
    where.className = `tk-q-says ${right ? "tk-q-right" : "tk-q-wrong"}`;
    where.replaceChildren(make("b", {}, right ? "✓ Right." : "✗ Not so."), " ", ...sentences.flatMap((s) => [s, " "]));
  };
  function locked(yes) {
    shut(kind.inputs, yes);
    kind.lock?.(yes);
    lockIn.hidden = yes;
    again.hidden = !yes;
  }
  function judged(answer) {
    const made = kind.judge(answer);
    verdict(says, made.right, made.says);
    locked(true);
    if (reasonBox) reasonBox.hidden = false;
    return made.right;
  }
  function judgedReason(text) {
    const option = question.reason.options.find((o) => o.text === text);
    if (!option) return null;
    verdict(reasonSays, option.right, [option.why]);
    shut(reasons.inputs, true);
    lockReason.hidden = true;
    return option.right;
  }
  function guess() {
    if (lockIn.hidden) return; // Enter in the number's field comes here, too
    const answer = kind.read();
    if (answer === undefined) return tell(kind.missing);
    const right = judged(answer);
    (reasons ? reasons.inputs[0] : again).focus();
    if (first) return;
    first = { answer, words: kind.words(answer), right, reason: null, reason_right: null };
    keep(first);
    document.dispatchEvent(new CustomEvent("teachkit-vote", { detail: question.name }));
  }
  function reason() {
    const [text] = reasons.read();
    if (text === undefined) return reasonSays.replaceChildren("Choose a reason first.");
    const right = judgedReason(text);
    again.focus();
    if (first.reason !== null || !same(first.answer, kind.read())) return;
    first = { ...first, reason: text, reason_right: right };
    keep(first);
  }
  function reset() {
    kind.clear();
    locked(false);
    says.className = reasonSays.className = "tk-q-says";
    says.replaceChildren(`Your first answer was: ${first.words}.`);
    if (reasons) {
      reasons.write([]);
      shut(reasons.inputs, false);
      reasonSays.replaceChildren();
      [reasonBox.hidden, lockReason.hidden] = [true, false];
    }
    (kind.inputs[0] ?? box.querySelector("button:not(:disabled)")).focus();
  }
  function show(vote) {
    first = vote;
    if (!kind.write(vote.answer)) {
      kind.clear(); // the question has changed since
      return says.replaceChildren(`You answered before: ${vote.words}.`);
    }
    judged(vote.answer);
    if (reasons && vote.reason !== null) {
      reasons.write([vote.reason]);
      judgedReason(vote.reason);
    }
  }
  locked(false);
  el.replaceChildren(box);
  if (first) show(first);
  return { show, say: (text) => (kept.textContent = text), first: () => first };
}

// A page without a kernel: each static question is replaced by a live one, and a vote opens what
// waits for it.
function hydrate(root) {
  for (const el of root.querySelectorAll(".teachkit-question[data-question]")) {
    keepKeys(el);
    mountQuestion(el, JSON.parse(el.dataset.question));
  }
  document.addEventListener("teachkit-vote", ({ detail }) => {
    for (const el of root.querySelectorAll("details[data-predict]")) if (el.dataset.predict === detail) el.open = true;
  });
}

const NOT_KEPT =
  "No kernel answers here. Your answer is judged, but it is not kept until you run this cell.";
const SEEN = "You have seen the result first, so this is not kept as a prediction.";

// A vote that no kernel has heard of waits on the page until the question's cell is run.
const unkept = (window.teachkitUnkept ??= new Map());
// So does a look at a result: a vote after it is no prediction.
const looks = (window.teachkitLooks ??= new Set());

function renderQuestion({ model, el }) {
  const off = keepKeys(el);
  const question = model.get("question");
  const before = model.get("vote");
  let alive = null;
  const asked = mountQuestion(el, question, {
    first: before.words ? before : null,
    keep(vote) {
      if (!looks.has(question.name)) unkept.set(question.name, vote);
      send(vote);
    },
  });
  function send(vote) {
    model.set("looked", looks.has(question.name));
    model.set("vote", vote);
    model.save_changes();
    tell();
  }
  function tell() {
    if (alive) unkept.delete(question.name);
    const kept = asked.first() && !unkept.has(question.name) && model.get("says");
    const lost = looks.has(question.name) ? SEEN : NOT_KEPT;
    asked.say(alive === false && !kept ? lost : model.get("says"));
  }
  const stop = whileAlive(model, (yes) => {
    alive = yes;
    const waiting = unkept.get(question.name);
    if (alive && waiting && !asked.first()) {
      asked.show(waiting);
      send(waiting);
    }
    tell();
  });
  model.on("change:says", tell);
  return () => {
    off();
    model.off("change:says", tell);
    stop.then((end) => end());
  };
}
