// The page: what is chosen, what is asked, and where the answer goes.

import { Bars } from "./bars.js";
import { Board } from "./drawing.js";
import { Bracket } from "./bracket.js";
import { Picker } from "./picking.js";
import { blank, floats, packed, paint, paintChange } from "./pixels.js";
import * as wire from "./wire.js";
import { VERDICTS, element, num, plural, read, sentence, unit } from "./words.js";

const WAIT = 90; // milliseconds of rest before a question is asked
const STEPS = 200; // of the slider: each is worth a digit of what is shown
const at = (id) => document.getElementById(id);

const state = { from: "pick", position: 0, held: null, threat: "ball", attack: null,
  sizes: { ball: 0, angle: 10 }, now: null, clean: null };
let about, board, picker, bars, bracket, timer, running;

const size = () => state.sizes[state.threat];
const widest = () => (state.threat === "angle" ? about.degrees : about.widest);

function busy(kind, text) {
  at("state").dataset.busy = kind;
  at("statetext").textContent = text;
}

// What is asked ------------------------------------------------------------------------------

function question() {
  const input = state.from === "pick" ? { position: state.position } : { values: packed(board.values) };
  const held = state.held === null ? {} : { held: state.held };
  return { ...input, ...held, threat: state.threat, size: size(), attack: state.attack };
}

/** Forget what was shown: it was about another question. */
function forget() {
  running?.abort(); // at once: whatever still comes is about the former question
  bars.attacked = bars.certified = bars.late = null;
  bars.draw();
  blank(at("change"), about.layout);
  blank(at("after"), about.layout);
  at("said-change").textContent = at("said-after").textContent = "";
  at("change-title").textContent = "change";
  at("after-title").textContent = "attacked";
  at("verdict").dataset.verdict = "none";
  at("verdict-word").textContent = "…";
  at("verdict-text").textContent = "Working on it.";
  at("after-frame").dataset.found = "no";
}

function refresh() {
  forget();
  busy("yes", "computing");
  clearTimeout(timer);
  timer = setTimeout(run, WAIT);
}

async function run() {
  const mine = (running = new AbortController());
  const asked = question();
  const key = JSON.stringify([asked.position, asked.values, state.held, asked.threat]);
  bracket.begin(key, asked.threat, asked.size);
  try {
    await wire.ask(asked, (name, data) => told[name]?.(data), mine.signal);
    if (!mine.signal.aborted && at("state").dataset.busy === "yes") busy("no", "done");
  } catch (error) {
    if (mine.signal.aborted) return;
    told.trouble({ message: error.message || "the server does not answer; is it still running?" });
  }
  if (mine === running) bracket.end();
}

// What is answered ---------------------------------------------------------------------------

const told = {
  clean(data) {
    state.clean = data;
    state.now = floats(data.values);
    bars.held = data.held;
    bars.clean = data;
    bars.draw();
    paint(at("before"), about.layout, state.now, about.span);
    at("before").setAttribute("aria-label", `The input; the model says ${data.predicted}`);
    says("said-before", data);
    doubts(data, null);
  },
  attack(data) {
    const after = floats(data.values);
    bars.attacked = data;
    bars.draw();
    paint(at("after"), about.layout, after, about.span);
    const times = paintChange(at("change"), about.layout, state.now, after, about.span);
    at("change-title").textContent = data.angle === undefined ? "change" : "difference";
    at("said-change").textContent = data.angle === undefined
      ? `at distance ${num(data.distance)}${times > 1.05 ? `, shown ${num(times, 2)}×` : ""}`
      : `turned by ${num(data.angle, 3)}°`;
    at("after-title").textContent = data.found ? `fooled by ${data.name}` : `${data.name}: not fooled`;
    at("after-frame").dataset.found = data.found ? "yes" : "no";
    at("after").setAttribute("aria-label", `The attacked input; the model says ${data.predicted}`);
    says("said-after", data);
    doubts(state.clean, data);
  },
  intervals(data) {
    bars.certified = data;
    bars.draw();
  },
  late(data) {
    bars.late = data.what;
    bars.draw();
  },
  verdict(data) {
    at("verdict").dataset.verdict = data.verdict;
    at("verdict-word").textContent = VERDICTS[data.verdict] ?? data.verdict;
    at("verdict-text").textContent = sentence(data, state.clean.held, about, state.threat);
    if (data.method === "clean") {
      at("after-title").textContent = "no attack";
      at("said-after").textContent = "the input itself is another class already";
    }
  },
  bracket(data) {
    bracket.told(data);
  },
  done() {
    busy("no", "done");
  },
  trouble(data) {
    busy("trouble", "trouble");
    at("verdict").dataset.verdict = "none";
    at("verdict-word").textContent = "Trouble";
    at("verdict-text").textContent = data.message;
  },
};

function says(id, data) {
  const sure = data.probabilities[data.predicted];
  at(id).textContent = `says ${data.predicted}${sure === null ? "" : `, ${(100 * sure).toFixed(1)} % sure`}`;
}

function doubts(clean, attacked) {
  if (!clean?.doubt) return;
  const rows = [["input", clean], ["attacked", attacked]].filter(([, said]) => said?.doubt).map(([name, said]) => {
    const row = element("tr");
    row.append(element("th", name, { scope: "row" }));
    for (const part of ["total", "aleatoric", "epistemic"]) row.append(element("td", said.doubt[part].toFixed(3)));
    const votes = said.doubt.members.map((member) => member.indexOf(Math.max(...member)));
    const cell = element("td");
    const strip = element("div", null, { class: "votes", "aria-hidden": "true" });
    strip.append(...votes.map((vote) => element("span", null, { "data-held": vote === clean.held ? "yes" : "no", title: `says ${vote}` })));
    const counts = new Map();
    for (const vote of votes) counts.set(vote, (counts.get(vote) ?? 0) + 1);
    const text = [...counts].sort((a, b) => b[1] - a[1]).map(([vote, count]) => `${count} say ${vote}`).join(", ");
    cell.append(strip, element("span", text, { class: "small soft" }));
    row.append(cell);
    return row;
  });
  at("doubts").replaceChildren(...rows);
}

// What is chosen -----------------------------------------------------------------------------

function showSize() {
  const step = Math.round(STEPS * Math.sqrt(Math.min(1, size() / widest())));
  if (Number(at("size").value) !== step) at("size").value = step;
  at("size").setAttribute("aria-valuetext", `${num(size())} ${unit(state.threat, size(), about)}`);
  at("exact").value = num(size());
  at("exact").removeAttribute("aria-invalid");
  at("unit").textContent = unit(state.threat, size(), about);
}

function wireControls() {
  at("size").addEventListener("input", () => {
    state.sizes[state.threat] = Number((widest() * (at("size").value / STEPS) ** 2).toPrecision(3));
    showSize();
    refresh();
  });
  at("exact").addEventListener("change", () => {
    const wanted = read(at("exact").value);
    const most = state.threat === "angle" ? about.degrees : about.largest;
    if (!(wanted >= 0 && wanted <= most)) {
      at("exact").setAttribute("aria-invalid", "true");
      return;
    }
    state.sizes[state.threat] = wanted;
    showSize();
    refresh();
  });
  for (const radio of document.querySelectorAll("[name=threat]")) {
    radio.addEventListener("change", () => {
      state.threat = radio.value;
      at("attack-field").hidden = state.threat === "angle";
      showSize();
      refresh();
    });
  }
  at("attack").addEventListener("change", () => { state.attack = at("attack").value; refresh(); });
  at("held").addEventListener("change", () => {
    const { value } = at("held");
    state.held = value === "" || value === "predicted" ? value || null : Number(value);
    refresh();
  });
  const tabs = [at("tab-pick"), at("tab-draw")];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(i === 0 ? "pick" : "draw"));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      tabs[1 - i].focus();
      choose(i === 0 ? "draw" : "pick");
    });
  });
  at("wipe").addEventListener("click", () => board.wipe());
  at("copy").addEventListener("click", () => { if (state.picked) board.take(state.picked); });
}

function choose(from) {
  if (from === "draw" && state.from === "pick") state.picked = state.now;
  state.from = from;
  for (const name of ["pick", "draw"]) {
    at(`tab-${name}`).setAttribute("aria-selected", String(name === from));
    at(`tab-${name}`).tabIndex = name === from ? 0 : -1;
    at(`pane-${name}`).hidden = name !== from;
  }
  refresh();
}

function introduce() {
  document.title = `${about.model} · explore`;
  at("model").textContent = about.model;
  at("facts").textContent = `${about.shape.join(" × ")} in, ${plural(about.classes, "class", "classes")} out · `
    + `values ${about.range ? `${num(about.range[0])} to ${num(about.range[1])}` : "without limits"} · at most ${num(about.seconds)} s an answer`;
  at("source").textContent = `${about.source}; a dot marks what the model gets wrong.`;
  at("attack").append(...about.attacks.map(({ name, text }) => element("option", name, { value: name, title: text })));
  state.attack = about.attacks[0].name;
  at("held").append(element("option", "its own class", { value: "", title: about.own_labels ? "The data's; of drawn inputs, the predicted one" : "The predicted one" }),
    element("option", "what it predicts", { value: "predicted" }),
    ...Array.from({ length: Math.min(about.classes, 1000) }, (_, k) => element("option", `class ${k}`, { value: k })));
  at("notes").textContent = `Model ${about.sha256 ?? ""}. ${about.notes.join(". ")}`;
  if (!about.degrees) {
    const angle = document.querySelector("[name=threat][value=angle]");
    angle.disabled = true;
    angle.parentElement.title = "The model takes no images of (channel, height, width).";
  }
  at("doubt").hidden = !about.doubt;
  at("doubt-about").textContent = about.doubt ?? "";
}

async function start() {
  try {
    about = await wire.about();
  } catch (error) {
    busy("trouble", "trouble");
    at("verdict-word").textContent = "Trouble";
    at("verdict-text").textContent = error.message;
    return;
  }
  introduce();
  state.sizes.ball = Number((about.widest * 0.15).toPrecision(2));
  bars = new Bars({ body: at("bars"), caption: at("bars-caption"), note: at("bars-note"),
    asProbability: at("as-probability"), asLogit: at("as-logit") }, about);
  bracket = new Bracket({ chart: at("bracket"), text: at("bracket-text"), note: at("bracket-note"), state: at("bracket-state") }, about);
  board = new Board({ board: at("board"), ink: at("ink"), inkField: at("ink-field"), colour: at("colour"),
    colourField: at("colour-field"), brush: at("brush"), brushField: at("brush-field"), sliders: at("sliders"),
    where: at("board-cell") }, about, () => { if (state.from === "draw") refresh(); });
  picker = new Picker({ thumbs: at("thumbs"), earlier: at("earlier"), later: at("later"), where: at("where") }, about,
    (input) => { state.position = input.position; if (state.from === "pick") refresh(); });
  wireControls();
  showSize();
  await picker.show(0);
  if (about.blank) choose("draw");
  else refresh();
}

start();
