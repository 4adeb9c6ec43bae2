// What the tests ask of JupyterLab's page. Loaded into each page before anything else.
window.book = {
  get app() { return window.jupyterapp; },
  get panel() { return this.app.shell.currentWidget; },
  get widgets() { return this.panel.content.widgets; },

  // JupyterLab shows "idle" before the kernel is connected; a Run All in that gap would be lost.
  async ready() {
    await this.app.restored;
    await this.panel.context.ready;
    await this.panel.sessionContext.ready;
    await this.panel.sessionContext.session.kernel.info;
  },

  cells() {
    return this.widgets.map((cell) => ({
      ...cell.model.sharedModel.toJSON(),
      id: cell.model.id,
      tags: cell.model.getMetadata("tags") ?? [],
    }));
  },

  // A cell's widget; without windowing each is on the page.
  cell(id) { return this.widgets.find((cell) => cell.model.id === id); },

  async within(seconds, what, promise) {
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`${what}: no end after ${seconds} s`)), 1000 * seconds));
    return await Promise.race([promise, late]);
  },

  async runAll(seconds) {
    await this.ready();
    await this.within(seconds, "Run All", this.app.commands.execute("notebook:run-all-cells"));
  },

  async run(id, seconds) {
    this.panel.content.activeCellIndex = this.widgets.indexOf(this.cell(id));
    this.panel.content.deselectAll();
    await this.within(seconds, `cell ${id}`, this.app.commands.execute("notebook:run-cell"));
  },

  write(id, source) { this.cell(id).model.sharedModel.setSource(source); },

  async save() {
    await this.app.commands.execute("docmanager:save");
    if (this.panel.context.model.dirty) throw new Error("the notebook is still marked as changed");
  },

  async restart() {
    await this.panel.sessionContext.restartKernel();
    await this.ready();
  },

  async close() {
    const panel = this.panel;
    await panel.sessionContext.shutdown();
    panel.close();
  },

  outputs() { return [...this.panel.node.querySelectorAll(".jp-OutputArea-output")]; },

  // Mark the outputs that are of our making, so that a selector finds them; how many there are.
  mark() {
    const ours = this.outputs().filter((output) => output.querySelector("[class*='tk-'], table, img, svg, details"));
    ours.forEach((output) => output.setAttribute("data-ours", ""));
    return ours.length;
  },

  // What sticks out of its output, unless it can be scrolled there with the keyboard.
  cropped() {
    const found = new Set();
    const name = (el) => [el.tagName.toLowerCase(), ...el.classList].join(".");
    const scrolls = (el) => ["auto", "scroll"].includes(getComputedStyle(el).overflowX);
    function scroller(el, output) {
      for (let up = el.parentElement; up && up !== output; up = up.parentElement) if (scrolls(up)) return up;
      return null;
    }
    for (const output of this.outputs()) {
      const room = output.getBoundingClientRect();
      const cell = output.closest(".jp-Cell");
      const at = this.widgets.find((widget) => widget.node === cell)?.model.id;
      for (const el of output.querySelectorAll("img, table, svg, form, fieldset, label, input, select, button, summary, pre, [class*='tk-']")) {
        const box = el.getBoundingClientRect();
        if (!box.width || !room.width || getComputedStyle(el).clipPath !== "none") continue;
        if (box.right <= room.right + 1 && box.left >= room.left - 1) continue;
        const within = scroller(el, output);
        if (within && within.tabIndex >= 0) continue;
        found.add(`${at}: ${name(el)} is ${Math.round(box.width)} px, its output ${Math.round(room.width)} px`);
      }
    }
    return [...found];
  },

  // All cells are on the page, those out of sight, too.
  complete() { return this.widgets.every((cell) => cell.node.isConnected && !cell.isPlaceholder()); },

  // Name a cell on the page, so that a selector finds it.
  point(id) { this.cell(id).node.setAttribute("data-cell", id); },

  // The key that moves a control on from where it is.
  onward(control) {
    if (control.type === "range") return Number(control.value) < Number(control.max) ? "ArrowRight" : "ArrowLeft";
    return control.selectedIndex < control.length - 1 ? "ArrowDown" : "ArrowUp";
  },

  async changed(img, before) {
    try {
      return (await this.looks(img)) !== before;
    } catch {
      return false; // it changes right now
    }
  },

  // A digest of what a picture shows.
  async looks(img) {
    await img.decode();
    const bytes = await (await fetch(img.src)).arrayBuffer();
    const digest = await crypto.subtle.digest("SHA-256", bytes);
    return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  },
};
