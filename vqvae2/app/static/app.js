/* What HTML components of the page do in the browser; they call these functions when they load. */
window.vqvae2 = (() => {
  "use strict";

  /** Arrow keys move the focus in a grid of cells, of which one is in the tab order. */
  function moveFocus(event, cells, columns) {
    const from = cells.indexOf(event.target);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const to = from + steps[event.key];
    if (from < 0 || !(event.key in steps) || !cells[to]) return false;
    event.preventDefault();
    cells[from].tabIndex = -1;
    cells[to].tabIndex = 0;
    cells[to].focus();
    return true;
  }

  /** Images of which one can be selected, and links that download them. */
  function gallery(element, trigger) {
    element.addEventListener("click", (event) => {
      const choice = event.target.closest(".vq-choice");
      if (!choice) return;
      for (const other of element.querySelectorAll(".vq-choice")) {
        other.setAttribute("aria-pressed", String(other === choice));
      }
      trigger("select", { index: Number(choice.dataset.index) });
    });
  }

  /** A map whose numbers are read under the mouse, by touch or by the arrow keys. */
  function numberMap(element) {
    const show = (event) => {
      const cell = event.target.closest(".vq-cells > i");
      if (cell) cell.closest(".vq-map").querySelector("output").textContent = cell.ariaLabel;
    };
    for (const type of ["pointerover", "focusin", "click"]) element.addEventListener(type, show);
    element.addEventListener("keydown", (event) => {
      const grid = event.target.closest(".vq-cells");
      if (grid) moveFocus(event, [...grid.children], Number(grid.dataset.columns));
    });
  }

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  /** Paints a mask on an image, or puts codes on a map. `props.value` is what Python sent. */
  function painter(element, props, trigger, watch) {
    let code = 0; // of the palette
    let stroke = null; // what dragging does: true marks, false clears

    const value = () => props.value || {};
    const isMask = () => value().mode === "mask";
    const cellsOf = () => [...element.querySelectorAll(".vq-paint > button")];
    const key = (row, column) => `${row},${column}`;
    const painted = () => new Set((value().cells || []).map(([row, column]) => key(row, column)));

    function patch(index) {
      const { palette, width, count } = value();
      const rows = Math.ceil(count / width);
      const x = width > 1 ? (100 * (index % width)) / (width - 1) : 0;
      const y = rows > 1 ? (100 * Math.floor(index / width)) / (rows - 1) : 0;
      return `background: url(${palette}) ${x}% ${y}% / ${100 * width}% ${100 * rows}%`;
    }

    /** Cells that are drawn again because a coarser code that covers them is. */
    function covered(marks) {
      const { rows, columns, grids, keep } = value();
      const result = new Set();
      for (const [height, width] of (grids || []).slice(keep)) {
        const coarse = (row, column) =>
          key(Math.floor((row * height) / rows), Math.floor((column * width) / columns));
        const touched = new Set([...marks].map((mark) => coarse(...mark.split(",").map(Number))));
        for (let row = 0; row < rows; row++)
          for (let column = 0; column < columns; column++)
            if (touched.has(coarse(row, column))) result.add(key(row, column));
      }
      return result;
    }

    function describe(cell) {
      const { row, column } = cell.dataset;
      const place = `row ${Number(row) + 1}, column ${Number(column) + 1}`;
      if (isMask()) return place;
      const changes = value().changes || {};
      return `${place}, code ${changes[key(row, column)] ?? value().codes[row][column]}`;
    }

    function refresh() {
      const marks = painted();
      const also = isMask() ? covered(marks) : new Set();
      const changes = value().changes || {};
      for (const cell of cellsOf()) {
        const name = key(cell.dataset.row, cell.dataset.column);
        const marked = isMask() ? marks.has(name) : name in changes;
        cell.setAttribute("aria-pressed", String(marked));
        cell.setAttribute("aria-label", describe(cell));
        cell.classList.toggle("also", also.has(name) && !marked);
        cell.style.cssText = !isMask() && marked ? patch(changes[name]) : "";
      }
      const output = element.querySelector("output");
      const word = (count) => `${count} ${count === 1 ? "cell" : "cells"}`;
      if (output && isMask()) {
        output.textContent = marks.size
          ? `${word(marks.size)} painted, ${word(also.size)} drawn again`
          : "Paint with the mouse or a finger; or move with the arrow keys, Space paints.";
      } else if (output) {
        const changed = Object.keys(changes).length;
        output.textContent = `Code ${code} is picked; ${word(changed)} changed.`;
      }
    }

    function paint(cell) {
      const row = Number(cell.dataset.row);
      const column = Number(cell.dataset.column);
      if (isMask()) {
        const cells = value().cells.filter(([r, c]) => r !== row || c !== column);
        if (stroke) cells.push([row, column]);
        props.value = { ...value(), cells };
      } else {
        props.value = { ...value(), changes: { ...value().changes, [key(row, column)]: code } };
      }
      refresh();
    }

    function begin(cell) {
      stroke = !painted().has(key(cell.dataset.row, cell.dataset.column));
      paint(cell);
    }

    function render() {
      element.replaceChildren();
      const { rows, columns, image, alt, count } = value();
      if (!rows) return;
      const grid = make("div", {
        class: "vq-paint",
        style: `--columns: ${columns}; --rows: ${rows}`,
        role: "group",
        "aria-label": isMask() ? "Cells to draw again" : "Codes of the map",
      });
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const tabindex = row || column ? -1 : 0;
          const attributes = { type: "button", tabindex, "data-row": row, "data-column": column };
          grid.append(make("button", attributes));
        }
      }
      const frame = make("div", { class: "vq-canvas" }, make("img", { src: image, alt }), grid);
      element.append(frame, make("output"));
      if (isMask()) {
        const all = make("button", { type: "button", class: "vq-small" }, "Paint all");
        const none = make("button", { type: "button", class: "vq-small" }, "Clear");
        all.onclick = () => {
          const cells = cellsOf().map((c) => [Number(c.dataset.row), Number(c.dataset.column)]);
          props.value = { ...value(), cells };
          refresh();
        };
        none.onclick = () => {
          props.value = { ...value(), cells: [] };
          refresh();
        };
        element.append(make("div", { class: "vq-tools" }, all, none));
      } else {
        const palette = make("div", { class: "vq-palette", role: "group", "aria-label": "Palette" });
        for (let index = 0; index < count; index++) {
          const pick = make("button", {
            type: "button",
            style: patch(index),
            "aria-label": `code ${index}`,
            "aria-pressed": index === code,
            title: `code ${index}`,
          });
          pick.onclick = () => {
            palette.children[code]?.setAttribute("aria-pressed", "false");
            code = index;
            pick.setAttribute("aria-pressed", "true");
            refresh();
          };
          palette.append(pick);
        }
        code = Math.min(code, count - 1);
        element.append(palette);
      }
      refresh();
    }

    const cellAt = (target) => target?.closest?.(".vq-paint > button");
    element.addEventListener("pointerdown", (event) => {
      const cell = cellAt(event.target);
      if (!cell) return;
      event.preventDefault();
      cell.focus({ preventScroll: true });
      begin(cell);
    });
    element.addEventListener("pointermove", (event) => {
      if (stroke === null || !event.buttons) return;
      const cell = cellAt(document.elementFromPoint(event.clientX, event.clientY));
      if (!cell || !element.contains(cell)) return;
      if (isMask() ? painted().has(key(cell.dataset.row, cell.dataset.column)) === stroke : false)
        return;
      paint(cell);
    });
    window.addEventListener("pointerup", () => (stroke = null));
    window.addEventListener("pointercancel", () => (stroke = null));
    element.addEventListener("keydown", (event) => {
      const cell = cellAt(event.target);
      if (!cell) return;
      if (event.key === " " || event.key === "Enter") {
        event.preventDefault();
        begin(cell);
        stroke = null;
      } else {
        moveFocus(event, cellsOf(), value().columns);
      }
    });
    watch("value", render);
    render();
  }

  document.addEventListener("input", (event) => {
    const frame = event.target.closest?.(".vq-compare");
    if (frame) frame.style.setProperty("--at", `${event.target.value}%`);
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".vq-download");
    if (!button) return;
    const link = document.createElement("a");
    link.href = button.closest("figure").querySelector("img").src;
    link.download = button.dataset.file;
    link.click();
  });

  return { gallery, numberMap, painter };
})();
