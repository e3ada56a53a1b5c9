// Thumbnails: one page of them at a time; a radio group, so one stop of the tab key.

import { inputs } from "./wire.js";
import { paintBytes } from "./pixels.js";
import { element } from "./words.js";

export class Picker {
  constructor(parts, about, picked) {
    Object.assign(this, { parts, about, picked, start: 0, chosen: 0 });
    parts.earlier.addEventListener("click", () => this.show(this.start - about.per_page));
    parts.later.addEventListener("click", () => this.show(this.start + about.per_page));
    parts.thumbs.addEventListener("keydown", (event) => this.key(event));
  }

  async show(start, focus = null) {
    const { thumbs, earlier, later, where } = this.parts;
    const found = await inputs(start);
    this.start = start;
    this.found = found.inputs;
    thumbs.replaceChildren(...this.found.map((input) => this.button(input)));
    const end = start + this.found.length;
    where.textContent = `${start + 1} to ${end} of ${this.about.count}`;
    earlier.disabled = start === 0;
    later.disabled = end >= this.about.count;
    this.mark();
    if (focus !== null) this.choose(focus, true);
  }

  button(input) {
    const wrong = input.label !== input.predicted;
    const label = `input ${input.index}, ${this.about.own_labels ? `class ${input.label}` : ""}, model says ${input.predicted}${wrong ? ", wrong" : ""}`;
    const made = element("button", null, {
      type: "button", role: "radio", class: "thumb", "aria-checked": "false", tabindex: "-1",
      "aria-label": label, title: label, "data-wrong": wrong ? "yes" : "no", "data-position": input.position,
    });
    const canvas = element("canvas", null, { "aria-hidden": "true" });
    paintBytes(canvas, this.about.layout, input);
    made.append(canvas);
    made.addEventListener("click", () => this.choose(input.position, true));
    return made;
  }

  choose(position, focus) {
    this.chosen = position;
    this.mark();
    const input = this.found.find((one) => one.position === position);
    if (focus) this.parts.thumbs.querySelector("[aria-checked=true]")?.focus();
    if (input) this.picked(input);
  }

  mark() {
    let any = false;
    for (const button of this.parts.thumbs.children) {
      const mine = Number(button.dataset.position) === this.chosen;
      button.setAttribute("aria-checked", String(mine));
      button.tabIndex = mine ? 0 : -1;
      any ||= mine;
    }
    if (!any && this.parts.thumbs.firstElementChild) this.parts.thumbs.firstElementChild.tabIndex = 0;
  }

  key(event) {
    const columns = getComputedStyle(this.parts.thumbs).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const now = Number(document.activeElement?.dataset?.position ?? this.chosen);
    const next = Math.max(0, Math.min(this.about.count - 1, now + moves[event.key]));
    const page = Math.floor(next / this.about.per_page) * this.about.per_page;
    if (page !== this.start) this.show(page, next);
    else this.choose(next, true);
  }
}
