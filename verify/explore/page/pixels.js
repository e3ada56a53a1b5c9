// Numbers as pictures: grey, colour, or a ramp for inputs that are no image.

export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export function floats(text) {
  const view = new DataView(bytes(text).buffer);
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

export function packed(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setFloat32(4 * i, value, true));
  let text = "";
  for (const byte of new Uint8Array(view.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
}

/** The number of a cell's channel in the flat input; beyond its end for an empty cell. */
export function place(layout, x, y, channel) {
  const cell = y * layout.width + x;
  if (layout.channels_last) return cell * layout.channels + channel;
  return channel * layout.width * layout.height + cell;
}

const RAMP = [[20, 24, 62], [38, 84, 150], [62, 150, 170], [150, 205, 150], [250, 232, 130]];

function ramp(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1);
  const low = Math.floor(at);
  return RAMP[low].map((value, i) => value + (RAMP[low + 1][i] - value) * (at - low));
}

const RISEN = [242, 120, 50];
const FALLEN = [70, 150, 240];

/** Size of change -> colour: dark where nothing changed. */
function diverging(share) {
  const far = Math.min(1, Math.abs(share)) ** 0.8;
  const aim = share > 0 ? RISEN : FALLEN;
  return aim.map((value) => 26 + (value - 26) * far);
}

function fill(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const found = colour(x, y);
      if (found) image.data.set([...found, 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** [red, green, blue] of one cell, or null for an empty one. */
export function shade(layout, values, [low, high], x, y) {
  const share = (channel) => (values[place(layout, x, y, channel)] - low) / (high - low);
  if (layout.channels === 3) return [0, 1, 2].map((channel) => 255 * share(channel));
  const only = share(0);
  if (Number.isNaN(only)) return null;
  return layout.kind === "image" ? [255 * only, 255 * only, 255 * only] : ramp(only);
}

export function paint(canvas, layout, values, span) {
  fill(canvas, layout.width, layout.height, (x, y) => shade(layout, values, span, x, y));
}

/** What was added, enlarged until its largest entry fills the scale; returns by how much. */
export function paintChange(canvas, layout, before, after, span) {
  const change = after.map((value, i) => value - before[i]);
  const largest = change.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const scale = largest || 1;
  fill(canvas, layout.width, layout.height, (x, y) => {
    const share = (channel) => change[place(layout, x, y, channel)] / scale;
    if (layout.channels === 3) return [0, 1, 2].map((channel) => 128 + 127 * share(channel));
    return Number.isNaN(share(0)) ? null : diverging(share(0));
  });
  return largest ? (span[1] - span[0]) / (2 * largest) : 0;
}

export function paintBytes(canvas, layout, thumbnail) {
  const values = bytes(thumbnail.pixels);
  const { width, height } = thumbnail;
  fill(canvas, width, height, (x, y) => {
    const first = (y * width + x) * layout.channels;
    if (layout.channels === 3) return values.subarray(first, first + 3);
    const share = values[first] / 255;
    return layout.kind === "image" ? [255 * share, 255 * share, 255 * share] : ramp(share);
  });
}

export function blank(canvas, layout) {
  fill(canvas, layout.width, layout.height, () => null);
}
