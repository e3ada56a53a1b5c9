// Prediction bars: the input's, the attacked one's, and what is certified for everything between.

import { down, element, num, svg, up } from "./words.js";

const MOST = 12;
const WIDE = 300;
const TALL = 24;

export class Bars {
  constructor(parts, about) {
    Object.assign(this, { parts, about, logits: false });
    parts.asProbability.addEventListener("click", () => this.scale(false));
    parts.asLogit.addEventListener("click", () => this.scale(true));
    this.reset();
  }

  reset() {
    this.clean = this.attacked = this.certified = this.late = null;
  }

  scale(logits) {
    this.logits = logits;
    this.parts.asProbability.setAttribute("aria-pressed", String(!logits));
    this.parts.asLogit.setAttribute("aria-pressed", String(logits));
    this.draw();
  }

  of(said) {
    return said && (this.logits ? said.logits : said.probabilities);
  }

  /** Classes to show: all, or those that may matter most. */
  classes() {
    const all = Array.from(this.clean.probabilities.keys());
    if (all.length <= MOST) return all;
    const weight = (k) => Math.max(this.clean.probabilities[k] ?? 0, this.attacked?.probabilities[k] ?? 0,
      1e-3 * (this.certified?.probabilities[1][k] ?? 0), k === this.held ? 2 : 0);
    return all.sort((a, b) => weight(b) - weight(a)).slice(0, MOST).sort((a, b) => a - b);
  }

  /** Ends of the scale; intervals far beyond the values are cut, and their numbers say so. */
  ends() {
    if (!this.logits) return [0, 1];
    const seen = [...this.clean.logits, ...(this.attacked?.logits ?? [])].filter((value) => value !== null);
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const room = Math.max(1e-6, high - low);
    const bounds = (this.certified?.logits ?? [[], []]).flat().filter((value) => value !== null);
    return [
      Math.max(low - 0.75 * room, Math.min(low, ...bounds)),
      Math.min(high + 0.75 * room, Math.max(high, ...bounds)),
    ];
  }

  draw() {
    if (!this.clean) return;
    const ends = this.ends();
    this.parts.body.replaceChildren(...this.classes().map((k) => this.row(k, ends)));
    const sum = this.certified;
    this.parts.caption.textContent = `Predictions by class: ${this.logits ? "logits" : "probabilities"}`;
    if (!sum) {
      this.parts.note.textContent = this.late ? `Nothing is certified of them: ${this.late} had not enough time.`
        : "Certified intervals are on their way.";
      return;
    }
    const { length } = sum.possible;
    let top = `only class ${sum.possible[0]} can be on top`;
    if (length > 1) top = `${length === this.about.classes ? "every class" : `${length} of ${this.about.classes} classes`} might be on top`;
    this.parts.note.textContent = `By ${sum.method}, for everything within the size: ${top}; `
      + `confidence ${down(sum.confidence[0], 3)} to ${up(sum.confidence[1], 3)}, entropy ${down(sum.entropy[0], 3)} to ${up(sum.entropy[1], 3)} nats.`;
  }

  row(k, ends) {
    const row = element("tr", null, { "data-held": k === this.held ? "yes" : "no" });
    row.append(element("th", String(k), { scope: "row" }));
    const drawn = element("td", null, { class: "drawn" });
    drawn.append(this.track(k, ends));
    row.append(drawn, element("td", this.number(this.of(this.clean)[k])));
    const attacked = this.of(this.attacked);
    const hit = this.attacked && this.attacked.predicted === k && k !== this.held;
    row.append(element("td", attacked ? this.number(attacked[k]) : "", { class: hit ? "hit" : "" }));
    row.append(element("td", this.interval(k)));
    return row;
  }

  number(value) {
    return this.logits ? num(value, 3) : (value ?? NaN).toFixed(3);
  }

  interval(k) {
    const found = this.of(this.certified);
    if (!found) return "";
    const places = this.logits ? 1 : 3;
    const [low, high] = [found[0][k], found[1][k]];
    if (low === null || high === null) return "not known";
    return `[${down(low, places)}, ${up(high, places)}]`;
  }

  track(k, [low, high]) {
    const x = (value) => Math.max(0, Math.min(1, (value - low) / (high - low))) * WIDE;
    const made = svg("svg", { class: "track", viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    made.append(svg("rect", { class: "rail", x: 0, y: 4, width: WIDE, height: 16, rx: 2 }));
    const zero = x(Math.max(low, Math.min(high, this.logits ? 0 : low)));
    const value = x(this.of(this.clean)[k]);
    made.append(svg("rect", { class: "fill", x: Math.min(zero, value), y: 6, width: Math.max(1, Math.abs(value - zero)), height: 12 }));
    if (this.logits) made.append(svg("path", { class: "zero", d: `M${zero} 1V23` }));
    const found = this.of(this.certified);
    if (found && found[0][k] !== null && found[1][k] !== null) {
      const [a, b] = [x(found[0][k]), x(found[1][k])];
      made.append(svg("rect", { class: "band", x: a, y: 4, width: Math.max(0.5, b - a), height: 16 }));
      made.append(svg("path", { class: "whisker", "vector-effect": "non-scaling-stroke", d: `M${a} 12H${b}M${a} 5V19M${b} 5V19` }));
    }
    const attacked = this.of(this.attacked);
    if (attacked) {
      const at = x(attacked[k]);
      const wide = this.narrow();
      made.append(svg("path", { class: "mark", "vector-effect": "non-scaling-stroke", d: `M${at} 5L${at + wide} 12L${at} 19L${at - wide} 12Z` }));
    }
    return made;
  }

  /** Half a mark's width in the units of a track, which is stretched. */
  narrow() {
    const shown = this.parts.body.querySelector(".track")?.getBoundingClientRect().width || WIDE;
    return (6 * WIDE) / shown;
  }
}
