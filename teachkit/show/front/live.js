// What every widget of the course shares. The files of this folder are joined, in the order in which
// show/live.py names them, to one module for JupyterLab or to one script for a plain page.

// Keys typed on a widget stay in it. JupyterLab listens on the document in the capture phase, so only
// a listener on the window comes before it; what the browser does with the key by itself goes on.
// Listeners on the widget's own elements get no key events: they listen for "input" and "click".
function keepKeys(element) {
  const keep = (event) => {
    if (event.composedPath().includes(element)) event.stopImmediatePropagation();
  };
  window.addEventListener("keydown", keep, true);
  return () => window.removeEventListener("keydown", keep, true);
}

// Call says(alive) now and at each change: whether a kernel answers behind the widget. A notebook that
// was saved and opened again has the widget's state, but no kernel; neither has one after a restart.
async function whileAlive(model, says) {
  const inner = await model.widget_manager.get_model(model.get("key"));
  const tell = () => says(Boolean(inner.comm_live));
  inner.on("comm_live_update", tell);
  tell();
  return () => inner.off("comm_live_update", tell);
}
