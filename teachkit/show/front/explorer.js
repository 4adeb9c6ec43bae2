// An explorer: controls above a picture. With a kernel each move asks for a new picture; where all
// pictures are here already ("frames"), they are shown without asking anyone.

const RUN = "Run this cell to move the sliders.";
const BUSY = 300; // ms until the page says that it waits
const REST = 400; // ms after which a picture that no longer moves is drawn in full
const FULL = 2; // dots a pixel of a picture at rest, sharp at 200 %
const LOST = 10000; // ms after which an answer is no longer waited for

function make(tag, parent, traits = {}) {
  const { aria = {}, ...rest } = traits;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

let made = 0;

// One labelled control over the positions of its options; moved() is called when the learner moves it.
function makeControl(parent, { name, label, slider, shown, start }, moved) {
  const id = `tk-explorer-${++made}-${name}`;
  make("label", parent, { htmlFor: id, textContent: label });
  const input = slider
    ? make("input", parent, { id, type: "range", min: 0, max: shown.length - 1, step: 1 })
    : make("select", parent, { id });
  if (!slider) shown.forEach((word, i) => make("option", input, { value: i, textContent: word }));
  const output = make("output", parent, { htmlFor: id });
  const tell = () => {
    output.textContent = slider ? shown[input.value] : "";
    if (slider) input.setAttribute("aria-valuetext", shown[input.value]);
  };
  input.addEventListener("input", () => (tell(), moved()));
  const put = (position) => ((input.value = position), tell());
  put(start);
  return { name, input, put, at: () => Number(input.value) };
}

// The elements of an explorer, the same with and without a kernel.
function stand(element, descriptions, moved) {
  const root = make("div", element, { className: "tk-explorer" });
  const box = make("div", root, { className: "tk-controls" });
  const controls = descriptions.map((each) => makeControl(box, each, moved));
  const state = make("p", root, { className: "tk-state", aria: { role: "status" } });
  const image = make("img", root, {});
  const says = make("p", root, { className: "tk-says", aria: { "aria-live": "polite" } });
  let address;
  const forget = (old) => old?.startsWith("blob:") && URL.revokeObjectURL(old);
  return {
    root,
    controls,
    forget: () => forget(address),
    say: (words) => {
      if (state.textContent !== words) state.textContent = words;
    },
    enable: (on) => controls.forEach(({ input }) => (input.disabled = !on)),
    show: ({ png, alt, title, size }) => {
      [image.width, image.height] = size;
      const old = address;
      address = typeof png === "string" ? png : URL.createObjectURL(new Blob([png], { type: "image/png" }));
      image.src = address;
      image.alt = alt;
      if (says.textContent !== title) says.textContent = title;
      forget(old);
    },
  };
}

// Controls over pictures that are here already: find(positions) gives the one to show.
function play(element, descriptions, find) {
  function show() {
    const frame = find(view.controls.map((control) => control.at()));
    view.say(frame.problem ?? "");
    if (frame.png) view.show(frame);
  }
  const view = stand(element, descriptions, show);
  show();
  return view;
}

// A page without a kernel: the controls of each explorer move between the pictures that it brought along.
function hydrateExplorers(root) {
  for (const element of root.querySelectorAll(".teachkit-explorer[data-frames]")) {
    const { controls, frames } = JSON.parse(element.dataset.frames);
    element.replaceChildren();
    keepKeys(element);
    play(element, controls, (at) => frames[at.join(" ")]);
  }
}

function nearest(frames, position) {
  const gaps = frames.map((frame) => Math.abs(frame.position - position));
  return gaps.indexOf(Math.min(...gaps));
}

function render({ model, el }) {
  const me = Math.random().toString(36).slice(2);
  const descriptions = model.get("controls");
  let asked = null, since = 0, newer = false, coarse = false, count = 0, timer, rest, still;
  const view = stand(el, descriptions, () => ask());
  const off = keepKeys(el);

  // A moving picture has the dots that the screen shows, which is quicker; one at rest has them all.
  function ask(density = Math.min(FULL, Math.ceil(window.devicePixelRatio))) {
    if (asked && performance.now() - since < LOST) return (newer = true);
    [newer, asked, since] = [false, `${me} ${++count}`, performance.now()];
    coarse = density < FULL;
    clearTimeout(timer);
    clearTimeout(rest);
    timer = setTimeout(() => view.say("drawing …"), BUSY);
    const at = view.controls.map(({ name, at }) => [name, at()]);
    model.send({ asked, density, at: Object.fromEntries(at) });
  }

  function draw() {
    const picture = { png: model.get("png"), ...model.get("shown") };
    view.show(picture);
    view.say(model.get("problem"));
  }

  function answered() {
    const mine = asked === model.get("answered");
    if (mine) {
      clearTimeout(timer);
      asked = null;
    }
    draw();
    if (!mine) return asked || settle();
    if (newer) return ask();
    settle();
    if (coarse) rest = setTimeout(() => ask(FULL), REST);
  }

  // Another view of the same explorer may have moved it.
  function settle() {
    const at = model.get("at");
    for (const control of view.controls) if (control.name in at) control.put(at[control.name]);
  }

  function lives(alive) {
    clearTimeout(timer);
    clearTimeout(rest);
    asked = null;
    const frames = model.get("frames");
    still?.forget();
    still?.root.remove();
    view.root.hidden = !alive && frames.length > 1;
    if (view.root.hidden) {
      const [first] = descriptions;
      const here = { ...first, shown: frames.map((frame) => frame.value), start: nearest(frames, view.controls[0].at()) };
      still = play(el, [here], ([position]) => frames[position]);
      still.say("These pictures were drawn before. " + RUN.replace("move the sliders", "have all of them"));
    }
    view.enable(alive);
    view.say(alive ? model.get("problem") : RUN);
  }

  settle();
  draw();
  model.on("change:answered", answered);
  const quiet = whileAlive(model, lives);
  return () => {
    off();
    model.off("change:answered", answered);
    [timer, rest].forEach(clearTimeout);
    [view, still].forEach((one) => one?.forget());
    quiet.then((stop) => stop());
  };
}

export default { render };
