"""A browser's window with a notebook in it, as a learner uses it."""

from teachkit.course.setup import ROOT

SHOTS = ROOT / "build" / "screenshots"
RUN_ALL = 300  # seconds: this machine may be busy with other tests
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CONNECTED = """name => {
  const book = window.jupyterapp?.shell?.currentWidget;
  return book?.context?.path === name && book.sessionContext?.session?.kernel;
}"""


class Window:
    """A page of JupyterLab; ``strange`` collects its errors and each request that leaves the machine."""

    def __init__(self, page, server):
        self.page, self.server, self.strange = page, server, []
        page.set_default_timeout(90_000)  # as for RUN_ALL
        page.route("**/*", self._only_here)
        page.on("pageerror", self._error)

    def _error(self, error):
        """Keep an error, but for the one that JupyterLab itself makes of a restarted kernel."""
        if "Canceled future for" not in str(error):
            self.strange.append(f"page error: {error}")

    def _only_here(self, route):
        if route.request.url.startswith((self.server.url, "data:", "blob:")):
            route.continue_()
        else:
            self.strange.append(f"request to {route.request.url}")
            route.abort()

    # The notebook as a whole -----------------------------------------------------------------

    def open(self, name):
        """Open a notebook of the learner's folder, and wait for its kernel."""
        top = self.server.course
        within = self.server.work.is_relative_to(top)
        folder = f"{self.server.work.relative_to(top)}/" if within else ""
        self.page.goto(f"{self.server.address(folder + name)}&reset")
        self.await_kernel(folder + name)
        self.theme("light")

    def await_kernel(self, name):
        """Wait until a notebook has its kernel, and all of its cells are on the page."""
        self.page.wait_for_function(CONNECTED, arg=name, timeout=60_000)
        self.page.evaluate("book.ready()")
        self.page.wait_for_function("book.complete()")

    def cells(self, tag=""):
        """The cells as JSON with id and tags, all or those with a tag."""
        return [c for c in self.page.evaluate("book.cells()") if not tag or tag in c["tags"]]

    def run_all(self):
        """Run all cells and wait for the last; what is wrong afterwards."""
        self.page.evaluate("seconds => book.runAll(seconds)", RUN_ALL)
        cells = [cell for cell in self.cells() if cell["cell_type"] == "code"]
        missed = [f"{cell['id']} did not run" for cell in cells if not cell["execution_count"]]
        return missed + [
            f"{cell['id']} raised {output['ename']}: {output['evalue']}"
            for cell in cells
            for output in cell["outputs"]
            if output["output_type"] == "error"
        ]

    def run(self, cell):
        """Run one cell; the text of its outputs as the learner reads it."""
        self.page.evaluate("([id, seconds]) => book.run(id, seconds)", [cell, RUN_ALL])
        return self.text(cell)

    def text(self, cell):
        """What stands in the outputs of a cell, what is folded included."""
        return self.page.evaluate(
            "id => [...book.cell(id).node.querySelectorAll('.jp-OutputArea-output')]"
            ".map(output => output.textContent).join('\\n')",
            cell,
        )

    def write(self, cell, source):
        """Put other words into a cell."""
        self.page.evaluate("([id, source]) => book.write(id, source)", [cell, source])

    def save(self):
        """Save, and wait until it is on the disk."""
        self.page.evaluate("book.save()")

    def undo(self):
        """Take back what was last done to the cells."""
        self.page.evaluate("book.app.commands.execute('notebook:undo-cell-action')")

    def restart(self):
        """Restart the kernel, and wait for the new one."""
        self.page.evaluate("book.restart()")

    def close(self):
        """Close the notebook and end its kernel."""
        self.page.evaluate("book.close()")

    # How it looks ----------------------------------------------------------------------------

    def theme(self, name):
        """Change to the light or the dark theme, and wait until it is there."""
        self.page.evaluate(
            "theme => book.app.commands.execute('apputils:change-theme', {theme})", THEMES[name]
        )
        self.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light",
            arg=str(name == "light").lower(),
        )

    def size(self, width, height):
        """Make the window another size: to a page, a zoom of 200 % is a window of half of it."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_function("width => innerWidth === width", arg=width)
        self.page.evaluate(FRAMES)  # what the resize moves has moved

    def violations(self):
        """What axe-core calls serious or critical in our outputs."""
        from axe_playwright_python.sync_playwright import Axe

        if not self.page.evaluate("book.mark()"):
            return []
        found = Axe().run(self.page, {"include": [["[data-ours]"]]}).response["violations"]
        return [
            f"axe: {rule['id']} ({rule['impact']}) {node['html'][:160]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    def cropped(self):
        """What is wider than the output that holds it."""
        return self.page.evaluate("book.cropped()")

    def point(self, cell):
        """Name a cell on the page, so that ``[data-cell='…']`` finds it."""
        self.page.evaluate("id => book.point(id)", cell)

    def shot(self, name, locator):
        """Keep a picture of the window with a part of the page in view, in build/screenshots."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # cells above get their height as they come into view
            locator.evaluate("it => it.scrollIntoView({block: 'center'})")
            self.page.evaluate(FRAMES)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def shoot(self, locator, name):
        """Keep a picture of a part of the page in build/screenshots."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        locator.scroll_into_view_if_needed()
        locator.screenshot(path=SHOTS / f"{name}.png")
