// Words and numbers: nothing here is ever put into the page as markup.

export function num(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

/** Certified ends are rounded outward, so that what is read is true as well. */
export function down(value, places) {
  return (Math.floor(value * 10 ** places) / 10 ** places).toFixed(places);
}

export function up(value, places) {
  return (Math.ceil(value * 10 ** places) / 10 ** places).toFixed(places);
}

/** A radius rounded down (certified) or up (attacked) to four digits. */
export function digits(value, upward) {
  if (value === 0 || value === null) return num(value);
  const places = Math.min(12, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value)))));
  return String(Number(upward ? up(value, places) : down(value, places)));
}

/** A number or a fraction such as 8/255; NaN for anything else. */
export function read(text) {
  const parts = text.trim().split("/");
  if (parts.length > 2 || parts.some((part) => !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(part.trim()))) {
    return NaN;
  }
  const [top, bottom = 1] = parts.map(Number);
  return top / bottom;
}

const NORMS = { inf: "L∞", 2: "L2", 1: "L1" };

/** What of an input may change, in words. */
export function region(threat, size, norm) {
  if (threat === "angle") return `every rotation by up to ${num(size)}° either way`;
  if (norm === "inf") return `every change by up to ${num(size)} in each value`;
  return `every change by up to ${num(size)} (${NORMS[norm]})`;
}

export function unit(threat, size, about) {
  if (threat === "angle") return "degrees";
  const name = NORMS[about.norm];
  const bytes = about.norm === "inf" && about.span[0] === 0 && about.span[1] === 1;
  return bytes ? `${name} · ${num(size * 255, 3)}/255` : name;
}

export const VERDICTS = { verified: "Verified", falsified: "Falsified", unknown: "Unknown" };

/** One sentence that says what a verdict means here. */
export function sentence(verdict, held, about, threat) {
  const where = region(threat, verdict.size, about.norm);
  if (verdict.verdict === "verified") {
    return `Proved by ${verdict.method}: ${where} leaves it class ${held}.`;
  }
  if (verdict.verdict === "falsified") {
    if (verdict.method === "clean") return `The model takes the input itself for another class than ${held}.`;
    const what = threat === "angle" ? `a rotation by at most ${num(verdict.size)}°` : where.replace("every change", "a change");
    return `Found${verdict.method && ` by ${verdict.method}`} and replayed in ONNX Runtime: ${what} makes it another class than ${held}.`;
  }
  // What is tried by options of the command line is no help on the page.
  const [why] = verdict.reason.split(";");
  return `Neither proved nor refuted: ${where}. ${why && `${why[0].toUpperCase()}${why.slice(1)}.`}`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** An element with text, never with markup. */
export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function svg(name, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
