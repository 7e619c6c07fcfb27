// A picture of any size to the pixels that a network takes, number by number as `snn-zoo predict` does it:
// the shorter side is scaled to the network's size and the centre cut out. Scaling is Pillow's: separable, with a filter
// that grows with the scale (so that nothing aliases), weights of 22 bits, and bytes between the two passes. The order of
// the two is that of Pillow 13; before, lines were always first, which differs by one step of 256 here and there.

const BITS = 22;
const FILTERS = {
  bilinear: {support: 1, at: x => Math.max(0, 1 - Math.abs(x))},
  bicubic: {support: 2, at: x => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }},
};

/** For each place on an axis of `to` pixels: where its pixels begin on one of `from`, and their weights. */
function weights(from, to, {support, at}) {
  const scale = from / to, widened = Math.max(1, scale);
  return Array.from({length: to}, (_, i) => {
    const centre = (i + 0.5) * scale, reach = support * widened;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({length: end - first}, (_, k) => at((k + first - centre + 0.5) / widened));
    const sum = raw.reduce((a, b) => a + b, 0);
    return {first, each: raw.map(w => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5)))};
  });
}

/** Scales one axis of bytes [lines, length, channels] whose neighbours along it are `stride` apart. */
function pass(source, target, places, lines, lineOf, stride, targetLineOf, targetStride, channels) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < places.length; i++) {
      const {first, each} = places[i], start = lineOf(line) + first * stride, end = targetLineOf(line) + i * targetStride;
      for (let c = 0; c < channels; c++) {
        let sum = 2 ** (BITS - 1);
        for (let k = 0, from = start + c; k < each.length; k++, from += stride) sum += source[from] * each[k];
        target[end + c] = Math.floor(sum / 2 ** BITS);  // a Uint8ClampedArray cuts what is below 0 and above 255
      }
    }
  }
}

/** RGBA bytes [height, width] scaled to [toHeight, toWidth]. */
export function resize(pixels, width, height, toWidth, toHeight, filter) {
  const along = () => {  // each line to its new length
    if (width === toWidth) return;
    const target = new Uint8ClampedArray(toWidth * height * 4), [row, toRow] = [width * 4, toWidth * 4];
    pass(pixels, target, weights(width, toWidth, filter), height, y => y * row, 4, y => y * toRow, 4, 3);
    [pixels, width] = [target, toWidth];
  };
  const across = () => {
    if (height === toHeight) return;
    const target = new Uint8ClampedArray(width * toHeight * 4), row = width * 4;
    pass(pixels, target, weights(height, toHeight, filter), width, x => x * 4, row, x => x * 4, row, 3);
    [pixels, height] = [target, toHeight];
  };
  const tall = height > toHeight && height - toHeight > 2 * (width - toWidth);
  for (const scale of tall ? [across, along] : [along, across]) scale();
  return pixels;
}

/** Half to even, as Python rounds. */
const rounded = x => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** RGBA bytes of a picture to RGB bytes [3, size, size]. */
export function prepare({data, width, height}, {size, crop_pct, interpolation}) {
  const short = Math.floor(size / crop_pct), least = Math.min(width, height);
  const [w, h] = [width, height].map(side => Math.trunc((short * side) / least));
  const scaled = w === width && h === height ? data : resize(data, width, height, w, h, FILTERS[interpolation]);
  const left = rounded((w - size) / 2), top = rounded((h - size) / 2), out = new Uint8Array(3 * size * size);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++) out[(c * size + y) * size + x] = scaled[((top + y) * w + left + x) * 4 + c];
  return out;
}
