// A result that is covered until its question has been answered. The vote is told on the page, so
// that it opens without a kernel, too; what it covers may be HTML or another widget.

async function showChild(model, place, gone) {
  const manager = model.widget_manager;
  const child = await manager.get_model(model.get("child").slice("IPY_MODEL_".length));
  const view = await manager.create_view(child);
  if (gone()) return view.remove();
  place.replaceChildren(view.el);
  (view.luminoWidget ?? view.pWidget)?.processMessage({ type: "after-attach" }); // as if Lumino had put it there
  return view;
}

function renderReveal({ model, el }) {
  const name = model.get("name");
  const place = make("div", { class: "tk-q-child" });
  const hint = make("p", {});
  const go = make("button", { type: "button", class: "tk-q-button", onclick: toQuestion }, "Go to the question");
  const skip = make("button", { type: "button", class: "tk-q-link", onclick: look }, "Show it without a prediction");
  const cover = make("div", { class: "tk-q-cover" }, make("p", {}, make("b", {}, `Predict first: question ${name}`)), hint, make("p", {}, go, " ", skip));
  const start = make("span", { tabindex: "-1" }); // the focus goes here when the button that had it is gone
  const keys = [keepKeys(cover), keepKeys(start)]; // what is covered keeps its own
  let view = null;
  let shown = false;
  let gone = false;

  function toQuestion() {
    const question = document.querySelector(`[data-asks="${name}"]`);
    if (!question) return (hint.textContent = `Question ${name} cannot be answered yet. Run its cell, above: show.quiz("${name}").`);
    question.scrollIntoView({ block: "center" });
    (question.querySelector("input:not(:disabled), button:not(:disabled)") ?? question).focus({ preventScroll: true });
  }
  function look() {
    if (!unkept.has(name)) looks.add(name);
    tellLook();
    start.focus();
  }
  function tellLook() {
    model.set("looked", true);
    model.set("opened", true);
    model.save_changes();
    open();
  }
  function voted({ detail }) {
    if (detail !== name) return;
    model.set("opened", true);
    model.save_changes();
    open();
  }
  function open() {
    cover.hidden = model.get("opened");
    if (!model.get("opened") || shown) return;
    shown = true;
    if (!model.get("child")) return (place.innerHTML = model.get("html"));
    showChild(model, place, () => gone).then((made) => (view = made), (error) => {
      place.textContent = "This explorer has no kernel behind it. Run its cell again.";
      console.warn(error);
    });
  }
  function asked() {
    hint.textContent = model.get("asked") ? "" : `Question ${name} has not been asked yet in this session: run its cell first.`;
  }
  el.replaceChildren(cover, start, place);
  asked();
  open();
  model.on("change:opened", open);
  model.on("change:asked", asked);
  document.addEventListener("teachkit-vote", voted);
  const stop = whileAlive(model, (yes) => yes && looks.has(name) && !model.get("looked") && tellLook());
  return () => {
    gone = true;
    stop.then((end) => end());
    keys.forEach((off) => off());
    model.off("change:opened", open);
    model.off("change:asked", asked);
    document.removeEventListener("teachkit-vote", voted);
    view?.remove?.();
  };
}
