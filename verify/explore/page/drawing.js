// The drawing board: by pointer or by keys; sliders where there are few values.

import { place, shade } from "./pixels.js";
import { element, num } from "./words.js";

const BOARD = 448;
const FEW = 32;

export class Board {
  constructor(parts, about, changed) {
    Object.assign(this, { parts, changed, layout: about.layout, span: about.span });
    this.scale = Math.max(1, Math.floor(BOARD / Math.max(this.layout.width, this.layout.height)));
    this.values = new Float32Array(this.layout.size).fill(Math.max(this.span[0], Math.min(0, this.span[1])));
    this.at = { x: Math.floor(this.layout.width / 2), y: Math.floor(this.layout.height / 2) };
    this.keyed = false;
    const { board, ink } = parts;
    board.width = this.layout.width * this.scale;
    board.height = this.layout.height * this.scale;
    [ink.min, ink.max] = this.span;
    ink.step = (this.span[1] - this.span[0]) / 100;
    ink.value = this.span[1];
    const coloured = this.layout.channels === 3;
    parts.colourField.hidden = !coloured;
    parts.inkField.hidden = coloured;
    parts.brushField.hidden = this.layout.kind !== "image";
    this.listen();
    if (this.layout.kind === "values" && this.layout.size <= FEW) this.slide();
    this.draw();
  }

  listen() {
    const { board } = this.parts;
    let last = null;
    board.addEventListener("pointerdown", (event) => {
      board.setPointerCapture(event.pointerId);
      board.focus({ preventScroll: true });
      this.keyed = false;
      last = this.cell(event);
      this.stroke(last, last, event.button === 2);
      event.preventDefault();
    });
    board.addEventListener("pointermove", (event) => {
      if (!last) return;
      const now = this.cell(event);
      this.stroke(last, now, (event.buttons & 2) !== 0);
      last = now;
    });
    for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, () => { last = null; });
    board.addEventListener("contextmenu", (event) => event.preventDefault());
    board.addEventListener("keydown", (event) => this.key(event));
    board.addEventListener("blur", () => { this.keyed = false; this.draw(); });
  }

  cell(event) {
    const box = this.parts.board.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.layout.width,
      y: ((event.clientY - box.top) / box.height) * this.layout.height,
    };
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.layout;
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      this.at = { x: (this.at.x + x + width) % width, y: (this.at.y + y + height) % height };
    } else if (event.key === " " || event.key === "Enter") {
      this.dab(this.at.x + 0.5, this.at.y + 0.5, false, 1);
      this.changed();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.dab(this.at.x + 0.5, this.at.y + 0.5, true, 1);
      this.changed();
    } else return;
    this.keyed = true;
    event.preventDefault();
    this.draw();
  }

  stroke(from, to, erase) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
    const brush = this.layout.kind === "image" ? Number(this.parts.brush.value) : 1;
    for (let i = 0; i <= steps; i += 1) {
      const share = i / steps;
      this.dab(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, erase, brush);
    }
    this.draw();
    this.changed();
  }

  /** The colour to paint with, a value for each channel. */
  ink() {
    const [low, high] = this.span;
    if (this.layout.channels === 1) return [Number(this.parts.ink.value)];
    const hex = this.parts.colour.value;
    return [1, 3, 5].map((i) => low + ((high - low) * parseInt(hex.slice(i, i + 2), 16)) / 255);
  }

  dab(x, y, erase, brush) {
    const ink = erase ? Array(this.layout.channels).fill(this.span[0]) : this.ink();
    const reach = brush === 1 ? 0 : brush / 2;
    for (let v = Math.floor(y - reach); v <= Math.floor(y + reach); v += 1) {
      for (let u = Math.floor(x - reach); u <= Math.floor(x + reach); u += 1) {
        if (u < 0 || v < 0 || u >= this.layout.width || v >= this.layout.height) continue;
        const far = Math.hypot(u + 0.5 - x, v + 0.5 - y);
        const force = reach === 0 ? 1 : Math.max(0, Math.min(1, 1.25 - far / (reach + 0.35)));
        ink.forEach((value, channel) => {
          const i = place(this.layout, u, v, channel);
          if (i >= this.values.length) return;
          this.values[i] += force * (value - this.values[i]);
        });
      }
    }
  }

  wipe() {
    this.values.fill(Math.max(this.span[0], Math.min(0, this.span[1])));
    this.draw();
    this.changed();
  }

  take(values) {
    this.values = Float32Array.from(values);
    this.draw();
    this.changed();
  }

  slide() {
    const { sliders } = this.parts;
    sliders.hidden = false;
    this.knobs = Array.from(this.values, (_, i) => {
      const label = element("label", `x${i}`);
      const [min, max] = this.span;
      const knob = element("input", null, { type: "range", min, max, step: (max - min) / 200 });
      const shown = element("span", "");
      label.append(knob, shown);
      sliders.append(label);
      knob.addEventListener("input", () => {
        this.values[i] = Number(knob.value);
        this.draw();
        this.changed();
      });
      return { knob, shown };
    });
  }

  draw() {
    const { board, where } = this.parts;
    const context = board.getContext("2d");
    context.clearRect(0, 0, board.width, board.height);
    for (let y = 0; y < this.layout.height; y += 1) {
      for (let x = 0; x < this.layout.width; x += 1) {
        const found = shade(this.layout, this.values, this.span, x, y);
        if (!found) continue;
        context.fillStyle = `rgb(${found.map(Math.round).join(" ")})`;
        context.fillRect(x * this.scale, y * this.scale, this.scale, this.scale);
      }
    }
    where.textContent = "";
    if (this.keyed) {
      const width = Math.max(2, this.scale / 8);
      context.lineWidth = width;
      context.strokeStyle = "#f2925e";
      context.strokeRect(this.at.x * this.scale + width / 2, this.at.y * this.scale + width / 2, this.scale - width, this.scale - width);
      const value = this.values[place(this.layout, this.at.x, this.at.y, 0)];
      where.textContent = `row ${this.at.y + 1}, column ${this.at.x + 1}: ${num(value, 3)}`;
    }
    (this.knobs ?? []).forEach(({ knob, shown }, i) => {
      knob.value = this.values[i];
      shown.textContent = num(this.values[i], 3);
    });
  }
}
