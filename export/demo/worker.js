// Runs the networks, one picture at a time, apart from the page, which so never waits.

import * as ort from "./ort.wasm.bundle.min.mjs";
import {prepare} from "./prepare.js";

ort.env.wasm.numThreads = 1;  // more would need a server that isolates the page

/** A file's bytes; those of a packed one are unpacked, unless the server did that on the way. */
async function bytes(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  const got = new Uint8Array(await answer.arrayBuffer());
  if (got[0] !== 0x1f || got[1] !== 0x8b) return got;
  const unpacked = new Blob([got]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

const create = graph => ort.InferenceSession.create(graph, {executionProviders: ["wasm"], graphOptimizationLevel: "all"});
const started = bytes("ort-wasm-simd-threaded.wasm.gz").then(code => (ort.env.wasm.wasmBinary = code.buffer));
const loaded = new Map();

/** A network: what it is, and its sessions: plain, as a program would run it, and with a look inside. */
async function load(about) {
  const [graph, look] = await Promise.all([bytes(`${about.name}.onnx`), bytes(`${about.name}.look.gz`), started]);
  const both = new Uint8Array(graph.length + look.length);
  both.set(graph);
  both.set(look, graph.length);  // protobuf: messages one after the other are one message
  return {about, graph, look: await create(both)};
}

const network = about => {
  if (!loaded.has(about.name)) loaded.set(about.name, load(about));
  return loaded.get(about.name).catch(error => { loaded.delete(about.name); throw error; });  // to be tried again
};

/** RGB bytes to what the network takes, in float32 like Python's. */
function normalised(pixels, {mean, std, prepare: {size}}) {
  const input = new Float32Array(pixels.length), plane = size * size;
  for (let i = 0; i < pixels.length; i++) {
    const c = Math.floor(i / plane), unit = Math.fround(pixels[i] / 255);
    input[i] = Math.fround(unit - Math.fround(mean[c])) / Math.fround(std[c]);
  }
  return new ort.Tensor("float32", input, [1, 3, size, size]);
}

/** One picture through the network: probabilities after each step, spikes, operations. */
async function look(picture, about) {
  const {look: session} = await network(about), {timesteps: T, layers, operations} = about;
  const pixels = prepare(picture, about.prepare), input = normalised(pixels, about);
  const begin = performance.now();
  const got = await session.run({input});
  const milliseconds = performance.now() - begin;
  const flat = got.step_logits.data, classes = flat.length / T;
  const logits = Array.from({length: T}, (_, t) => Array.from(flat.subarray(t * classes, (t + 1) * classes)));
  const maps = layers.map(({name}) => got[`${name}/map`].data);
  const spikes = layers.map(({name}) => Array.from(got[`spikes/${name}`].data));
  const counted = operations && {accumulate: new Array(T).fill(0), multiply: new Array(T).fill(0)};
  operations?.forEach(({steps, multiply}, i) => {
    for (const t of steps) counted[multiply ? "multiply" : "accumulate"][t] += got.operations.data[i];
  });
  return {input, answer: {pixels, logits, mean: Array.from(got.logits.data), maps, spikes, operations: counted, milliseconds}};
}

/** Milliseconds of the network without a look inside and of its ReLU twin, in turns: medians of up to seven rounds. */
async function time(input, about, goOn) {
  const own = await network(about);
  own.plain ??= await create(own.graph);
  own.twin ??= await create(await bytes(`${about.name}.relu.onnx`));
  const each = {plain: [], twin: []}, runs = {plain: 1, twin: 1}, limit = performance.now() + 3000;
  for (let round = -1; round < 7 && (round < 1 || performance.now() < limit); round++) {
    for (const kind of ["plain", "twin"]) {
      const begin = performance.now();
      for (let i = 0; i < runs[kind]; i++) await own[kind].run({input});
      const took = (performance.now() - begin) / runs[kind];
      if (round < 0) runs[kind] = Math.max(1, Math.ceil(20 / Math.max(took, 0.1)));  // clocks are coarse; and it is warm
      else each[kind].push(took);
      await new Promise(next => setTimeout(next));  // a new picture goes first
      if (!goOn()) return null;
    }
  }
  const median = of => of.sort((a, b) => a - b)[of.length >> 1];
  return {plain: median(each.plain), twin: median(each.twin), rounds: each.plain.length};
}

let newest = 0;
onmessage = async ({data: {id, picture, about, timed}}) => {
  newest = id;
  try {
    await network(about);
    if (newest !== id) return postMessage({id, skipped: true});
    const {input, answer} = await look(picture, about);
    postMessage({id, answer}, answer.maps.map(map => map.buffer));
    if (!timed) return;
    const times = await time(input, about, () => newest === id);
    if (times) postMessage({id, times});
  } catch (error) {
    postMessage({id, error: String(error?.message ?? error)});
  }
};
