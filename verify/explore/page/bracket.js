// The bracket over the time that was spent on it: proved from below, refuted from above.

import { digits, num, svg, element } from "./words.js";

const WIDE = 460;
const TALL = 270;
const EDGE = { left: 54, right: 76, top: 12, bottom: 26 };

export class Bracket {
  constructor(parts, about) {
    Object.assign(this, { parts, about, key: null, trace: [], worked: 0, running: false });
  }

  /** A new answer begins; what is known of the same input goes on. */
  begin(key, threat, size) {
    if (key !== this.key) {
      this.trace = [];
      this.worked = 0;
      this.last = null;
    } else {
      this.worked = this.now();
    }
    Object.assign(this, { key, threat, size, since: performance.now(), running: true });
    clearInterval(this.timer);
    this.timer = setInterval(() => this.draw(), 200);
    this.draw();
  }

  now() {
    return this.worked + (this.running ? (performance.now() - this.since) / 1000 : 0);
  }

  told(found) {
    this.last = found;
    this.trace.push({ at: this.now(), low: found.certified, high: found.attacked });
    this.draw();
  }

  end() {
    this.worked = this.now();
    this.running = false;
    clearInterval(this.timer);
    this.draw();
  }

  unit() {
    return this.threat === "angle" ? "°" : "";
  }

  draw() {
    this.words();
    const { chart } = this.parts;
    chart.setAttribute("viewBox", `0 0 ${WIDE} ${TALL}`);
    chart.replaceChildren();
    if (!this.last) return;
    const { certified: low, attacked: high } = this.last;
    const most = high === null ? 1.6 * Math.max(low, this.size, 1e-9) : Math.max(1.35 * high, 1.15 * this.size, 1e-9);
    const long = Math.max(1, this.now());
    const right = WIDE - EDGE.right;
    const x = (time) => EDGE.left + (right - EDGE.left) * (time / long);
    const y = (value) => TALL - EDGE.bottom - (TALL - EDGE.bottom - EDGE.top) * Math.max(0, Math.min(1, value / most));
    const steps = [...this.trace, { at: long, low, high }];
    const line = (pick) => steps.map(({ at, ...ends }, i) => {
      const level = y(pick(ends) ?? most * 2);
      return i === 0 ? `M${x(at)} ${level}` : `H${x(at)}V${level}`;
    }).join("");
    const first = x(steps[0].at);
    const add = (name, attributes, text) => chart.append(svg(name, attributes, text));
    add("rect", { class: "gap", x: first, y: EDGE.top, width: Math.max(0, right - first), height: y(0) - EDGE.top });
    add("path", { class: "certified", d: `${line((ends) => ends.low)}V${y(0)}H${first}Z` });
    if (high !== null) {
      const from = steps.findIndex((step) => step.high !== null);
      const known = steps.slice(from).map(({ at, high: end }, i) => (i === 0 ? `M${x(at)} ${y(end)}` : `H${x(at)}V${y(end)}`)).join("");
      add("path", { class: "attacked", d: `${known}V${EDGE.top}H${x(steps[from].at)}Z` });
      add("path", { class: "high", d: known });
    }
    add("path", { class: "low", d: line((ends) => ends.low) });
    add("path", { class: "axis", d: `M${EDGE.left} ${EDGE.top}V${y(0)}H${right}`, fill: "none" });
    this.labels(add, { low, high, most, long, x, y, right });
  }

  labels(add, { low, high, most, long, x, y, right }) {
    add("text", { x: EDGE.left - 6, y: y(0) + 4, "text-anchor": "end" }, "0");
    add("text", { x: EDGE.left - 6, y: EDGE.top + 8, "text-anchor": "end" }, num(most, 2) + this.unit());
    add("text", { x: EDGE.left, y: TALL - 8 }, "0 s");
    add("text", { x: right, y: TALL - 8, "text-anchor": "end" }, `${num(long, 2)} s`);
    add("path", { class: "here", d: `M${EDGE.left} ${y(this.size)}H${right}` });
    const marks = [[y(this.size), num(this.size, 3), "herelabel"]];
    if (low > 0) marks.push([y(low), digits(low, false), ""]);
    if (high !== null) marks.push([y(high), digits(high, true), ""]);
    marks.sort((a, b) => a[0] - b[0]);
    let free = -Infinity;
    for (const [at, text, name] of marks) {
      const level = Math.max(at + 4, free);
      add("text", { x: right + 6, y: level, class: name }, text + this.unit());
      free = level + 14;
    }
  }

  words() {
    const { text, note, state, chart } = this.parts;
    text.replaceChildren();
    state.textContent = this.running ? "searching" : "";
    if (!this.last) {
      note.textContent = "";
      return;
    }
    const { certified, attacked, method, attack, finished } = this.last;
    const name = this.threat === "angle" ? "angle" : "radius";
    text.append(
      element("span", digits(certified, false) + this.unit(), { class: "c" }),
      element("span", ` ≤ ${name} ${attacked === null ? "" : "≤ "}`, { class: "m" }),
      attacked === null ? element("span", "no attack found yet", { class: "m" })
        : element("span", digits(attacked, true) + this.unit(), { class: "a" }),
    );
    const below = method ? `Proved by ${method}` : "Nothing proved yet";
    const above = attacked === null ? "nothing found" : `found by ${attack || "search"}`;
    const why = finished || (this.running ? "" : "stopped");
    note.textContent = attacked === 0 ? "The model takes the input itself for another class than the one that must stay."
      : `${below}; ${above}. ${why && `${why[0].toUpperCase()}${why.slice(1)}.`}`;
    chart.setAttribute("aria-label", `Bracket: certified ${num(certified)}, attacked ${num(attacked)}, after ${num(this.now(), 2)} seconds`);
  }
}
