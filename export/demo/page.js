// What one sees: the picture, the answer, the numbers, and the spikes as maps that move from step to step.

import {samples} from "./samples.js";

const $ = id => document.getElementById(id);
const STEP = 1000, WAVE = 550;  // milliseconds of a time step on screen, and of a signal's way through the layers
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const number = new Intl.NumberFormat("en");
const percent = (part, digits = 0) => `${(100 * part).toFixed(digits)} %`;
const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  for (const [key, value] of Object.entries(attributes)) if (key.includes("-") || key === "role") made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const say = (text, failed = false) => { $("status").textContent = text; $("status").classList.toggle("failed", failed); };

const page = {networks: [], about: null, picture: null, result: null, playing: !still, step: 0, chosen: 1, source: "drop"};

// --- pictures in, answers out

const worker = new Worker("worker.js", {type: "module"});
let asked = 0, waiting = null;
worker.onerror = event => say(`The network cannot run in this browser: ${event.message || "no module workers"}`, true);
worker.onmessage = ({data: {id, answer, times, error}}) => {
  if (error) { waiting?.(); return say(`The network could not run: ${error}`, true); }
  if (id !== asked) return;
  if (answer) { say(""); page.result = answer; page.times = null; show(); waiting?.(); }
  if (times) { page.result.times = times; showTimes(); document.body.dataset.timed = id; }
};

/** Asks for the newest picture; resolves once it is answered, or another one is asked for. */
function ask(timed = true) {
  if (!page.picture || !page.about) return Promise.resolve();
  if (!page.result) say("Loading the network …");
  document.body.dataset.asked = ++asked;
  worker.postMessage({id: asked, picture: page.picture, about: page.about, timed});
  waiting?.();
  return new Promise(done => { waiting = done; });
}

const scratch = document.createElement("canvas"), paper = scratch.getContext("2d", {willReadFrequently: true});

/** RGBA bytes of what can be drawn, at its own size; above 4096 pixels a side, which some browsers do not hold, smaller. */
function pixelsOf(image, width, height) {
  const fit = Math.min(1, 4096 / Math.max(width, height));
  scratch.width = Math.max(1, Math.round(width * fit));
  scratch.height = Math.max(1, Math.round(height * fit));
  paper.drawImage(image, 0, 0, scratch.width, scratch.height);
  const {data} = paper.getImageData(0, 0, scratch.width, scratch.height);
  return {data, width: scratch.width, height: scratch.height};
}

function cover(image, width, height) {
  const to = $("shown"), side = Math.min(width, height);
  to.getContext("2d").drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, to.width, to.height);
}

/** Upright as its camera says and transparent on black, where `predict` takes a file's pixels as they lie there. */
async function takeFile(file) {
  try {
    const image = await createImageBitmap(file, {colorSpaceConversion: "none"});
    choose("drop");
    page.picture = page.dropped = pixelsOf(image, image.width, image.height);
    cover(image, image.width, image.height);
    await ask();
  } catch {
    say(`${file.name || "That"} is no picture that this browser can read`, true);
  }
}

async function takeSample(image) {
  choose("drop");
  page.picture = page.dropped = pixelsOf(image, 256, 256);
  cover(image, image.naturalWidth, image.naturalHeight);
  await ask();
}

function choose(source) {
  page.source = source;
  for (const button of document.querySelectorAll("[data-source]")) button.setAttribute("aria-pressed", button.dataset.source === source);
  for (const id of ["drop", "draw", "film"]) $(id).hidden = id !== source;
  if (source !== "film") stopFilm();
}

// --- drawing

const COLOURS = ["#1f2328", "#ffffff", "#8a8f98", "#6b4a2f", "#c9a36a", "#d12f2f", "#f2c230", "#3f8f3f", "#2f6fd1", "#9fd0f0"];
const board = $("board"), ink = board.getContext("2d", {willReadFrequently: true});
let colour = COLOURS[5], last = null;

function setUpBoard() {
  ink.fillStyle = "#9fd0f0";
  ink.fillRect(0, 0, board.width, board.height);
  for (const value of COLOURS) {
    const button = element("button", {type: "button", title: value, "aria-pressed": value === colour});
    button.style.background = value;
    button.onclick = () => {
      colour = value;
      for (const other of $("colours").children) other.setAttribute("aria-pressed", other === button);
    };
    $("colours").append(button);
  }
  const at = event => {
    const box = board.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * board.width, ((event.clientY - box.top) / box.height) * board.height];
  };
  const stroke = to => {
    Object.assign(ink, {strokeStyle: colour, lineWidth: +$("brush").value, lineCap: "round", lineJoin: "round"});
    ink.beginPath();
    ink.moveTo(...last);
    ink.lineTo(...to);
    ink.stroke();
    last = to;
    drawn(false);
  };
  board.onpointerdown = event => { board.setPointerCapture(event.pointerId); last = at(event); stroke(last); };
  board.onpointermove = event => last && stroke(at(event));
  board.onpointerup = board.onpointercancel = () => { if (last) { last = null; drawn(true); } };
  $("fill").onclick = () => { ink.fillStyle = colour; ink.fillRect(0, 0, board.width, board.height); drawn(true); };
}

let busy = false, again = false;
/** Takes the board; while it is being drawn on, as often as the network keeps up. */
async function drawn(timed) {
  page.picture = pixelsOf(board, board.width, board.height);
  if (timed) { again = false; return ask(); }
  if (busy) { again = true; return; }
  busy = true;
  do { again = false; await ask(false); } while (again);
  busy = false;
}

// --- filming

let stream = null;
function stopFilm() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
}

async function film() {
  const video = $("video");
  stopFilm();
  let mine = null;
  try {
    if (!navigator.mediaDevices) throw new Error("browsers lend a camera only to https and localhost");
    mine = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment", width: 640, height: 480}});
    stopFilm();
    stream = mine;
    if (page.source !== "film") return stopFilm();  // another source was chosen while the browser asked
    video.srcObject = mine;
    await video.play();
  } catch (error) {
    if (stream === mine) stopFilm();
    return say(`No camera: ${error.message}`, true);
  }
  const goesOn = () => stream === mine && page.source === "film";
  for (let seen = 0, begin = 0, tried = null; goesOn(); seen++) {
    page.picture = pixelsOf(video, video.videoWidth, video.videoHeight);
    const {name} = page.about, timed = page.timesOf !== name && tried !== name, until = performance.now() + 10000;
    await ask(timed);
    while (timed && goesOn() && page.timesOf !== name && performance.now() < until) await new Promise(next => setTimeout(next, 100));
    if (timed || !seen) [seen, begin, tried] = [0, performance.now(), name];
    $("fps").textContent = seen ? `${((1000 * seen) / (performance.now() - begin)).toFixed(1)} pictures a second` : "";
    await new Promise(requestAnimationFrame);
  }
}

// --- the answer

const softmax = logits => {
  const top = Math.max(...logits), each = logits.map(v => Math.exp(v - top)), sum = each.reduce((a, b) => a + b);
  return each.map(v => v / sum);
};

/** Probabilities after each step: of the mean of the logits so far. */
function probabilities({logits}) {
  const sum = logits[0].map(() => 0);
  return logits.map((step, t) => softmax(step.map((v, i) => (sum[i] += v) / (t + 1))));
}

function exitOf(after) {
  const enough = +$("sure").value / 100, at = after.findIndex(p => Math.max(...p) >= enough);
  return {at: at < 0 ? after.length - 1 : at, sure: at >= 0};
}

const article = name => (/^[aeiou]/i.test(name) ? "an" : "a");

function show() {
  const {about, result} = page, size = about.prepare.size;
  const seen = $("seen"), image = new ImageData(size, size);
  seen.width = seen.height = size;
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = result.pixels[c * size * size + i];
    image.data[4 * i + 3] = 255;
  }
  seen.getContext("2d").putImageData(image, 0, 0);
  result.after = probabilities(result);
  const final = result.after.at(-1), best = final.indexOf(Math.max(...final)), name = about.classes[best];
  const sure = final[best] >= 0.8 ? "It sees" : final[best] >= 0.5 ? "It thinks it sees" : "It is not sure: perhaps";
  $("says").replaceChildren(`${sure} ${article(name)} `, element("span", {className: "hot"}, name));
  showSteps();
  showNumbers();
  prepareMaps();
  Object.assign(document.body.dataset, {answered: asked, network: about.name, class: name});
}

function showSteps() {
  const {about, result} = page, {after} = result, exit = exitOf(after);
  const order = after.at(-1).map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]).slice(0, 5).map(([, i]) => i);
  const mark = t => [t === exit.at && exit.sure ? "exit" : "", exit.sure && t > exit.at ? "after" : ""].join(" ");
  const head = element("div", {role: "row"}, element("span", {role: "columnheader"}));
  after.forEach((_, t) => head.append(element("span", {role: "columnheader", className: mark(t)},
    t === exit.at && exit.sure ? `step ${t + 1} sure` : `step ${t + 1}`)));
  const rows = order.map((c, rank) => {
    const row = element("div", {role: "row"}, element("span", {role: "rowheader", className: rank ? "" : "first"}, about.classes[c]));
    after.forEach((p, t) => {
      const bar = element("i");
      bar.style.setProperty("--p", p[c]);
      row.append(element("span", {role: "cell", className: mark(t)}, bar, element("span", {}, (100 * p[c]).toFixed(p[c] < 0.0995 ? 1 : 0))));
    });
    return row;
  });
  $("steps").style.setProperty("--t", after.length);
  $("steps").replaceChildren(head, ...rows);
  $("sure-value").textContent = `${$("sure").value} %`;
  const per = stepTotals(), saved = per.slice(exit.at + 1).reduce((a, b) => a + b, 0) / per.reduce((a, b) => a + b, 0);
  $("exit").textContent = !exit.sure ? "It never is, so it takes all its steps."
    : saved ? `It could stop after step ${exit.at + 1} of ${after.length}, which saves ${percent(saved)} of its spikes.`
    : "It is, but only after its last step.";
}

const stepTotals = () => page.result.logits.map((_, t) => page.result.spikes.reduce((sum, layer) => sum + layer[t], 0));

function bars(id, rows) {
  const top = Math.max(...rows.map(row => row.value));
  $(id).replaceChildren(...rows.flatMap(({label, value, text, kind}) => {
    const bar = element("i", {className: kind ?? ""});
    bar.style.setProperty("--p", value / top || 0);
    return [element("span", {}, label), bar, element("b", {}, text)];
  }));
}

function showNumbers() {
  const {about, result} = page, per = stepTotals(), exit = exitOf(result.after);
  const total = per.reduce((a, b) => a + b, 0), T = about.timesteps;
  const places = T * about.layers.reduce((sum, layer) => sum + neuronsOf(layer), 0);
  const late = t => (exit.sure && t > exit.at ? "after" : "");
  $("spikes").textContent = number.format(total);
  bars("by-step", per.map((value, t) => ({label: `step ${t + 1}`, value, text: number.format(value), kind: late(t)})));
  const neurons = number.format(places / T);
  $("silent").textContent = `${neurons} neurons had ${T} chances each: in ${percent(1 - total / places)} of them they were silent.`;
  const {operations} = result, [add, multiply] = about.picojoules;
  const relu = (about.relu_macs * multiply) / 1e6, unit = value => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} µJ`;
  if (operations) {
    const sum = of => of.reduce((a, b) => a + b, 0);
    const own = (sum(operations.accumulate) * add + sum(operations.multiply) * multiply) / 1e6;
    $("energy").textContent = unit(own);
    bars("energies", [{label: "spikes", value: own, text: unit(own)}, {label: "ReLU twin", value: relu, text: `≤ ${unit(relu)}`, kind: "twin"}]);
    result.energy = own;
  } else {
    $("energy").textContent = "not known";
    bars("energies", []);
  }
  showTimes();
}

function showTimes() {
  const {times} = page.result, unit = ms => `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  if (!times) {
    if (!$("times").childElementCount || page.timesOf !== page.about.name) { $("time").textContent = "measuring …"; $("times").replaceChildren(); }
    return;
  }
  page.timesOf = page.about.name;
  $("time").textContent = unit(times.plain);
  const T = page.about.timesteps;
  bars("times", [{label: `spikes, ${T} steps`, value: times.plain, text: unit(times.plain)},
    {label: "ReLU twin, 1 step", value: times.twin, text: unit(times.twin), kind: "twin"}]);
}

// --- the maps

const palette = new Uint32Array(256);
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const stops = [0, 1, 2].map(i => style.getPropertyValue(`--map${i}`).trim().match(/[0-9a-f]{2}/gi).map(hex => parseInt(hex, 16)));
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * 2, low = stops[Math.min(1, Math.floor(at))], high = stops[Math.min(1, Math.floor(at)) + 1], part = at - Math.min(1, Math.floor(at));
    const [r, g, b] = low.map((v, c) => Math.round(v + (high[c] - v) * part));
    palette[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
}

const neuronsOf = ({shape}) => shape.reduce((a, b) => a * b);

/** Channels, height and width of a layer's maps; neurons without places stand in a square. */
function shapeOf(layer) {
  if (layer.shape.length === 3) return layer.shape;
  const side = Math.ceil(Math.sqrt(neuronsOf(layer)));
  return [1, side, side];
}

function setUpTiles() {
  page.step = Math.min(page.step, page.about.timesteps - 1);
  $("tiles").replaceChildren(...page.about.layers.map((layer, i) => {
    const [, height, width] = shapeOf(layer), canvas = element("canvas", {width, height});
    const button = element("button", {type: "button", title: `${layer.name}: ${layer.shape.join(" × ")} neurons`, "aria-pressed": i === page.chosen},
      canvas, element("span", {}, element("span", {}, `${i + 1}`), element("b", {}, "")));
    button.onclick = () => { page.chosen = i; drawChosen(); };
    return button;
  }));
  const steps = Array.from({length: page.about.timesteps}, (_, t) => {
    const button = element("button", {type: "button", "aria-label": `Step ${t + 1}`}, `${t + 1}`);
    button.onclick = () => { page.playing = false; page.step = t; mark(); };
    return button;
  });
  $("player").replaceChildren($("play"), ...steps);
}

function mark() {
  $("play").textContent = page.playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", page.playing ? "Pause" : "Play");
  [...$("player").children].slice(1).forEach((button, t) => button.setAttribute("aria-pressed", t === page.step));
  for (const row of $("steps").children) [...row.children].forEach((cell, i) => cell.classList.toggle("now", i - 1 === page.step));
  page.result?.spikes.forEach((counts, i) => {
    $("tiles").children[i].querySelector("b").textContent = percent(counts[page.step] / neuronsOf(page.about.layers[i]));
  });
}

/** For each layer and step, how many of its channels spike at each place, 0 to 1 of the layer's most. */
function prepareMaps() {
  const {about, result} = page, T = about.timesteps;
  if ($("tiles").childElementCount !== about.layers.length || page.tilesOf !== about.name) { page.tilesOf = about.name; setUpTiles(); }
  result.density = about.layers.map((layer, i) => {
    const [channels, height, width] = shapeOf(layer), map = result.maps[i], one = map.length / T, plane = height * width;
    const steps = Array.from({length: T}, (_, t) => {
      const sum = new Float32Array(plane);
      for (let k = 0; k < one; k++) sum[channels > 1 ? k % plane : k] += map[t * one + k];
      return sum;
    });
    const most = Math.max(1, ...steps.map(sum => sum.reduce((a, b) => Math.max(a, b), 0)));
    for (const sum of steps) for (let k = 0; k < plane; k++) sum[k] /= most;
    return steps;
  });
  drawChosen();
}

function drawChosen() {
  const layer = page.about.layers[(page.chosen = Math.min(page.chosen, page.about.layers.length - 1))];
  const [channels, height, width] = shapeOf(layer), canvas = $("channels").querySelector("canvas");
  const wide = Math.sqrt((channels * height * (innerWidth > 700 ? 2.2 : 1)) / width), far = n => Math.abs(Math.log(n / wide));
  const columns = Array.from({length: channels}, (_, i) => i + 1).filter(n => channels % n === 0).reduce((a, b) => (far(b) < far(a) ? b : a));
  const zoom = Math.max(1, Math.round(32 / height));  // so that the lines between small maps are thin, too
  Object.assign(canvas, {width: columns * (width * zoom + 1) - 1, height: Math.ceil(channels / columns) * (height * zoom + 1) - 1});
  Object.assign(page, {columns, zoom});
  const maps = layer.shape.length === 3 ? `${channels} maps of ${height} × ${width} neurons; each map looks for one thing` : `${neuronsOf(layer)} neurons`;
  $("channels").querySelector("figcaption").textContent = `Layer ${page.chosen + 1} (${layer.name}), neuron by neuron: ${maps}.`;
  [...$("tiles").children].forEach((tile, i) => tile.setAttribute("aria-pressed", i === page.chosen));
  mark();
}

/** Where a layer is in time: its step, and how much of a spike's glow is left. */
function moment(now, layer, layers) {
  if (!page.playing) return {t: page.step, glow: 1, rest: 0};
  const T = page.about.timesteps, own = now - (layer / layers) * WAVE, t = Math.floor(own / STEP);
  const since = own / STEP - t, glow = Math.min(1, since * 12) * (0.3 + 0.7 * Math.exp(-2.2 * since));
  return {t: ((t % T) + T) % T, glow, rest: 0.3 * Math.max(0, 1 - since * 12)};
}

function draw(now) {
  requestAnimationFrame(draw);
  const {about, result} = page;
  if (!result?.density || now - page.drawn < 30) return;
  page.drawn = now;
  if (page.playing) {
    const t = Math.floor(now / STEP) % about.timesteps;
    if (t !== page.step) { page.step = t; mark(); }
  }
  about.layers.forEach((layer, i) => {
    const canvas = $("tiles").children[i].firstChild, {t, glow, rest} = moment(now, i, about.layers.length);
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height), to = new Uint32Array(image.data.buffer);
    const map = result.density[i][t], before = result.density[i][(t + about.timesteps - 1) % about.timesteps];
    for (let k = 0; k < to.length; k++) to[k] = palette[Math.round(255 * Math.min(1, map[k] * glow + before[k] * rest))];
    context.putImageData(image, 0, 0);
  });
  drawChannels(now);
}

function drawChannels(now) {
  const {about, result, chosen, columns, zoom} = page, [channels, height, width] = shapeOf(about.layers[chosen]);
  const canvas = $("channels").querySelector("canvas"), context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height), to = new Uint32Array(image.data.buffer);
  const {t, glow, rest} = moment(now, chosen, about.layers.length), T = about.timesteps, map = result.maps[chosen], one = map.length / T;
  const lit = [0, rest, glow, Math.max(glow, rest)].map(v => palette[Math.round(255 * v)]), ago = ((t + T - 1) % T) * one;
  for (let k = 0; k < one; k++) {
    const c = Math.floor(k / (height * width)), y = Math.floor(k / width) % height, x = k % width;
    const row = Math.floor(c / columns) * (height * zoom + 1) + y * zoom, column = (c % columns) * (width * zoom + 1) + x * zoom;
    const shade = lit[map[t * one + k] * 2 + map[ago + k]];
    for (let line = row; line < row + zoom; line++) to.fill(shade, line * canvas.width + column, line * canvas.width + column + zoom);
  }
  context.putImageData(image, 0, 0);
}

// --- the start

function setUpNetworks() {
  $("networks").replaceChildren(...page.networks.map(about => {
    const facts = [about.top1 && `${about.top1.toFixed(1)} % right`, `${about.timesteps} steps`, `${(about.parameters / 1e6).toFixed(2)} M weights`];
    const button = element("button", {type: "button", role: "radio", "aria-checked": about === page.about},
      element("b", {}, about.title ?? about.name), element("small", {}, facts.filter(Boolean).join(" · ")),
      element("small", {}, about.title ? about.name : ""));
    button.onclick = () => { page.about = about; setUpNetworks(); page.result = null; ask(page.source !== "film"); };
    return button;
  }));
  $("onnx").href = `${page.about.name}.onnx`;
  $("count").textContent = page.about.classes.length;
  $("classes").textContent = page.about.classes.join(", ");
}

async function start() {
  readColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
  page.networks = await (await fetch("networks.json")).json();
  const named = decodeURIComponent(location.hash.slice(1));  // as the leaderboard links to it
  page.about = page.networks.find(about => about.name === named) ?? page.networks[0];
  setUpNetworks();
  setUpBoard();
  for (const button of document.querySelectorAll("[data-source]")) button.onclick = () => {
    choose(button.dataset.source);
    if (page.source === "drop") { page.picture = page.dropped; ask(); }
    if (page.source === "draw") drawn(true);
    if (page.source === "film") film();
  };
  $("file").onchange = ({target}) => {
    if (target.files[0]) takeFile(target.files[0]);
    target.value = "";  // or the same file, changed meanwhile, would not be taken again
  };
  addEventListener("paste", event => { const file = [...event.clipboardData.files][0]; if (file) takeFile(file); });
  for (const kind of ["dragover", "dragleave", "drop"]) addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
  $("sure").oninput = () => { if (page.result) { showSteps(); showNumbers(); mark(); } };
  $("play").onclick = () => { page.playing = !page.playing; mark(); };
  addEventListener("resize", () => page.result && drawChosen());
  const images = samples.map(({name, svg}) => {
    const image = element("img", {alt: name, src: `data:image/svg+xml,${encodeURIComponent(svg)}`});
    const button = element("button", {type: "button", title: name}, image);
    button.onclick = () => takeSample(image);
    $("samples").append(button);
    return image;
  });
  page.drawn = 0;
  requestAnimationFrame(draw);
  await images[0].decode();
  await takeSample(images[0]);
  if (named && page.about.name !== named) say(`This page does not have ${named}: it shows ${page.about.name}`, true);
}

window.page = page;  // for the curious, and for tests
start().catch(error => say(`The page cannot start: ${error.message}`, true));
