// Event-driven convolutions: sums of weights over the spikes of a window, with scale, bias, shortcut and LIF neurons
// behind, for all time steps in one call. Pure C++17; a C interface at the end. event_ort.cpp makes an operator of ONNX
// Runtime of it.
//
// One position of one output channel at one step, counts of spikes n >= 0 (a spike is 1), weights w in int16:
//
//     sum = sum over the window of n w                       exact: int16 partial sums that cannot overflow, then int32
//     x   = float(sum) * scale + bias                        float32, each operation rounded by itself
//     x   = x + shortcut                                     where there is one: float32 currents, or counts
//     u   = v * decay + x * gain;  spike if u >= threshold   v of the step before, 0 or the state given
//     v   = spike ? 0 : u, or spike ? u - threshold : u      hard or soft reset
//
// Layout: channels last, time-major: spikes uint8 [T*B, H, W, C], currents float32 [T*B, Ho, Wo, Co], membrane
// potentials float32 [B, Ho, Wo, Co].
//
// How the sums are made. A *plane* is one bit of the counts at one step: binary spikes have T planes, counts up to 3
// have 2 T. Planes are taken in groups of at most four. A channel of a pixel has a *pattern* in a group, the planes in
// which it is set (15 patterns beside 0 of four planes). For a row of output positions the set channels of all rows of
// the window lie in one list for each pattern, ordered by column, so that the window of a position is one range of each
// list. For each position and pattern the weight rows [channels of a block] of its range are added up in registers, and
// the sum is added to each plane of the pattern: a row of weights is loaded once for all steps in which its channel
// spikes, so that the cost follows the union of the steps and not their number.
//
//     one plane a group     "plain": each step by itself; for few spikes of few channels
//     two planes, four      "union": the better the more alike the steps are
//
// Small layers have a "table", too: the sums of each choice of four channels of a tap, 16 rows for four. Then a plane
// costs a row for every four channels of the window, whatever spikes: no lists, and no loop whose length a processor
// cannot foresee, which is what takes most of the time where lists are short. Timings of one image again and again
// flatter the lists: its branches are learnt by heart.
//
// Which form is taken is chosen at run time, from the spikes of some pixels. (One that adds the weights of all taps of
// a spike to the positions that it reaches is estimated to be no faster; it was not timed.)
//
// Weights may be float32, too, at half the speed: the same with float32 sums, whose order is neither that of a dense
// convolution nor that of another group, so that currents are equal up to rounding.
//
// Why int16 cannot overflow. Between two widenings a plane's sum takes at most `limit` different rows of the window.
// The sum of any such choice is at most the sum of the `limit` largest positive weights of the channel and at least
// that of its `limit` most negative ones; when the weights are packed, `limit` is chosen as the largest for which both
// fit into int16, for every channel of the block. Of a table, all fours of some columns of the
// window or of an even part of one are added up, whatever spikes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <type_traits>
#include <vector>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are handed to functions that are inlined, always
#define INLINE inline __attribute__((always_inline))

extern "C" {
// What is known of a layer when a network is loaded. Plain numbers, for ctypes and for attributes of a node.
struct EventShape {
  int32_t channels, out_channels, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right;
  int32_t timesteps;
  int32_t bits;  // of a count: 1 for spikes, up to 4
  int32_t soft_reset;
  float decay, gain, threshold;
  int32_t isa;    // to force an instruction set: 1 portable, 2 AVX2, 3 AVX-512; 0 to choose, as in the next two
  int32_t group;  // planes, or 8 for the table
  int32_t block;  // channels
};
typedef void EventTask(void* data, size_t index);
struct EventCall {
  int64_t batch, height, width;
  const uint8_t* spikes;
  const float* shortcut;           // [T*B, Ho, Wo, Co] or null
  const uint8_t* shortcut_counts;  // the same in counts, or null
  const float* state;              // [B, Ho, Wo, Co] or null for zeros
  uint8_t* out_spikes;             // each of the three or null; without spikes and state, no neurons are computed
  float* out_currents;
  float* out_state;
  int32_t tasks;  // how many to make, about: 1 where one thread works
  void (*parallel_for)(void* pool, EventTask* task, void* data, size_t count);  // null to run them in turn
  void* pool;
};
}

namespace {

constexpr int kPlanes = 4;      // most planes of a group
constexpr int kTable = 8;       // a group for which the table is used
constexpr int kPad = 32;        // output channels are padded to a multiple
constexpr int kWidest = 128;    // channels of a block: this, a half or a quarter
constexpr int kPositions = 32;  // most positions of a strip
constexpr int kMostRows = 8;    // of a window
constexpr int kMostSteps = 128;
constexpr int64_t kMostSide = 1 << 20;
constexpr int64_t kRows = 65535;  // rows of weights that an entry can name

template <int kBytes>
struct Vec {
  typedef int16_t I16 __attribute__((vector_size(kBytes)));
  typedef uint16_t U16 __attribute__((vector_size(kBytes)));
  typedef int32_t I32 __attribute__((vector_size(kBytes)));
  typedef float F32 __attribute__((vector_size(kBytes)));
  typedef uint8_t U8 __attribute__((vector_size(kBytes)));
  typedef uint8_t Quarter __attribute__((vector_size(kBytes / 4)));
};

// Vectors from memory and back, of any alignment; the first n lanes, the others 0.
template <class V>
INLINE V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
INLINE void store(void* to, const V& v) {
  __builtin_memcpy(to, &v, sizeof v);
}
template <class V>
INLINE V load(const void* from, int n) {
  constexpr int kLanes = sizeof(V) / sizeof(V{}[0]);
  if (n >= kLanes) return load<V>(from);
  V v = {};
  std::memcpy(&v, from, n * sizeof(V{}[0]));
  return v;
}
template <class V>
INLINE void store(void* to, const V& v, int n) {
  constexpr int kLanes = sizeof(V) / sizeof(V{}[0]);
  if (n >= kLanes) return store(to, v);
  std::memcpy(to, &v, n * sizeof(V{}[0]));
}

// Memory that grows and is not cleared.
template <class T>
class Buffer {
 public:
  T* need(size_t n) {
    if (n > size_) {
      size_ = 0, data_.reset();  // `new` may throw
      data_.reset(new T[n]), size_ = n;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<T[]> data_;
  size_t size_ = 0;
};

// Some output positions of a row, and the input columns that their windows cover.
struct Strip {
  int64_t image, row, first;  // first position
  int64_t from;               // first column
  int positions, columns;
};

// The lists of a strip and a group of planes: those of pattern p at column x are entries[begin[x][p]] to
// entries[begin[x + 1][p]], so that several columns are one range. An entry names a row of weights, (column * kernel_h
// + row of the window) * C + channel.
struct Lists {
  const uint16_t* entries;
  const int32_t* begin;  // [columns + 1][2^planes]
};

// Output channels whose weights lie together, [kernel_w][kernel_h][C][width], in int16 or float32.
struct Block {
  int first, width, limit;
  const void *weight, *end;
};

struct Addition {
  Lists lists;
  int first, last, columns;  // positions
  int left, stride, kernel;  // left: of the first window of the strip, in columns
  int rows;                  // of weights in a column of the window
  int limit;
  const void* weight;
  int32_t* out;  // [positions][planes][width], this group's first plane; of float32 weights, float32
  int step;
};

// Sums of int16 of two channels lie in the halves of an int32 (see `pack`), from which two shifts make int32 sums.
template <int kBytes>
INLINE void widen(const typename Vec<kBytes>::I16& sum, typename Vec<kBytes>::I32* low,
                  typename Vec<kBytes>::I32* high) {
  const typename Vec<kBytes>::I32 both = (typename Vec<kBytes>::I32)sum;
  *low = both << 16 >> 16, *high = both >> 16;
}

// Adds sums of int16 to int32 sums, or sets these, and starts anew.
template <int kBytes, int kGroup, int kRegisters>
INLINE void widen_all(typename Vec<kBytes>::I16 (*acc)[kRegisters], int32_t* out, bool add) {
  using I32 = typename Vec<kBytes>::I32;
#pragma GCC unroll 4
  for (int j = 0; j < kGroup; j++) {
#pragma GCC unroll 16
    for (int r = 0; r < kRegisters; r++, out += kBytes / 2) {
      I32 low, high;
      widen<kBytes>(acc[j][r], &low, &high);
      acc[j][r] = typename Vec<kBytes>::I16{};
      if (add) low += load<I32>(out), high += load<I32>(out + kBytes / 4);
      store(out, low), store(out + kBytes / 4, high);
    }
  }
}
// Sums of float32 need no more room: they are stored as they are, once.
template <int kBytes, int kGroup, int kRegisters>
INLINE void widen_all(typename Vec<kBytes>::F32 (*acc)[kRegisters], int32_t* out, bool) {
#pragma GCC unroll 4
  for (int j = 0; j < kGroup; j++)
#pragma GCC unroll 16
    for (int r = 0; r < kRegisters; r++, out += kBytes / 4) store(out, acc[j][r]);
}

// Adds up rows of weights.
template <class W, int kBytes, int kWidth, class V, int kRegisters>
INLINE void add_entries(V (&sum)[kRegisters], const W* base, const uint16_t* a, const uint16_t* stop) {
  for (; a < stop; a++) {
    const W* row = base + (size_t)*a * kWidth;
#pragma GCC unroll 16
    for (int r = 0; r < kRegisters; r++) sum[r] += load<V>(row + r * (kBytes / sizeof(W)));
  }
}

// The sums of a group of planes and a block of channels, for some positions of a strip. W is int16_t or float.
template <class W, int kBytes, int kGroup, int kWidth>
INLINE void add_rows(const Addition& s) {
  constexpr bool kFloats = std::is_same_v<W, float>;
  using V = std::conditional_t<kFloats, typename Vec<kBytes>::F32, typename Vec<kBytes>::I16>;
  using I32 = typename Vec<kBytes>::I32;
  constexpr int kRegisters = kWidth / (kBytes / sizeof(W));
  int32_t* out = s.out;
  for (int x = s.first; x < s.last; x++, out += s.step) {
    const int left = s.left + x * s.stride;
    const int x0 = std::min(std::max(left, 0), s.columns), x1 = std::min(std::max(left + s.kernel, 0), s.columns);
    const W* base = (const W*)s.weight - (ptrdiff_t)left * s.rows * kWidth;
    const int32_t *first = s.lists.begin + (x0 << kGroup), *last = s.lists.begin + (x1 << kGroup);
    if constexpr (kGroup == 1 && !kFloats) {  // int32 sums of one plane stay in registers
      const uint16_t *a = s.lists.entries + first[1], *end = s.lists.entries + last[1];
      I32 wide[2 * kRegisters] = {};
      while (a < end) {
        V sum[kRegisters] = {};
        const uint16_t* stop = a + std::min<ptrdiff_t>(end - a, s.limit);
        add_entries<W, kBytes, kWidth>(sum, base, a, stop);
        a = stop;
#pragma GCC unroll 16
        for (int r = 0; r < kRegisters; r++) {
          I32 low, high;
          widen<kBytes>(sum[r], &low, &high);
          wide[2 * r] += low, wide[2 * r + 1] += high;
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < 2 * kRegisters; r++) store(out + r * (kBytes / 4), wide[r]);
      continue;
    }
    V acc[kGroup][kRegisters] = {};
    int room = s.limit;
    bool widened = false;
#pragma GCC unroll 16
    for (int p = 1; p < 1 << kGroup; p++) {
      const uint16_t *a = s.lists.entries + first[p], *end = s.lists.entries + last[p];
      while (a < end) {
        ptrdiff_t n = end - a;
        if constexpr (!kFloats) {
          if (__builtin_expect(room == 0, 0)) {
            widen_all<kBytes, kGroup, kRegisters>(acc, out, widened);
            room = s.limit, widened = true;
          }
          n = std::min<ptrdiff_t>(n, room);
          room -= (int)n;
        }
        V sum[kRegisters] = {};
        add_entries<W, kBytes, kWidth>(sum, base, a, a + n);
        a += n;
#pragma GCC unroll 4
        for (int j = 0; j < kGroup; j++)
          if (p >> j & 1)
#pragma GCC unroll 16
            for (int r = 0; r < kRegisters; r++) acc[j][r] += sum[r];
      }
    }
    widen_all<kBytes, kGroup, kRegisters>(acc, out, widened);
  }
}

// Sums of some positions of a strip from the table of a block, see `Packed`: of all planes of a group at once, without
// a list, and no branch depends on the spikes.
struct LookUp {
  const uint8_t* index;      // [columns][fours][4]: of each plane, which channels of a four spike, times width / 4
  int first, last, columns;  // positions
  int left, stride, kernel;  // as for Addition
  int fours;                 // of channels in a column of the window, from top to bottom
  int limit;                 // fours between two widenings
  const int16_t* weight;
  int32_t* out;
  int step;
};

template <int kBytes, int kGroup, int kWidth>
INLINE void look_up_rows(const LookUp& s) {
  using I16 = typename Vec<kBytes>::I16;
  using I32 = typename Vec<kBytes>::I32;
  constexpr int kRegisters = kWidth / (kBytes / 2);
  int32_t* out = s.out;
  for (int x = s.first; x < s.last; x++, out += s.step) {
    const int left = s.left + x * s.stride;
    const int x0 = std::min(std::max(left, 0), s.columns), x1 = std::min(std::max(left + s.kernel, 0), s.columns);
    const uint8_t *index = s.index + (size_t)x0 * s.fours * 4, *end = s.index + (size_t)x1 * s.fours * 4;
    const char* weight = (const char*)(s.weight + (ptrdiff_t)(x0 - left) * s.fours * 16 * kWidth);
    I32 wide[kGroup][2 * kRegisters] = {};
    while (index < end) {
      const uint8_t* stop = index + std::min<ptrdiff_t>(end - index, s.limit * 4);
      I16 acc[kGroup][kRegisters] = {};
      for (; index < stop; index += 4, weight += 32 * kWidth) {
        uint32_t four;
        std::memcpy(&four, index, 4);  // little-endian
#pragma GCC unroll 4
        for (int j = 0; j < kGroup; j++) {
          const char* row = weight + (size_t)(four >> 8 * j & 255) * 8;
#pragma GCC unroll 8
          for (int r = 0; r < kRegisters; r++) acc[j][r] += load<I16>(row + r * kBytes);
        }
      }
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; j++)
#pragma GCC unroll 8
        for (int r = 0; r < kRegisters; r++) {
          I32 low, high;
          widen<kBytes>(acc[j][r], &low, &high);
          wide[j][2 * r] += low, wide[j][2 * r + 1] += high;
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kGroup; j++)
#pragma GCC unroll 8
      for (int r = 0; r < 2 * kRegisters; r++) store(out + j * kWidth + r * (kBytes / 4), wide[j][r]);
  }
}

// What becomes of the sums of a strip and a block; pointers are those of its first position and channel at the first
// step.
struct Finish {
  const EventShape* shape;
  int positions, step_sums, width, channels;  // channels: of the block that are not padding
  int64_t step;                               // elements from one time step to the next
  const int32_t* sums;                        // [positions][timesteps][bits][width], or null where currents are given
  bool floats;                                // the sums are float32
  const float* given;
  int64_t given_step;  // 0 where they are the same at every step
  const float *scale, *bias, *shortcut, *state;
  const uint8_t* counts;
  uint8_t* spikes;
  float *currents, *new_state;
};

#ifdef __x86_64__
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt")))
AVX512 inline Vec<64>::F32 numbers_avx512(const uint32_t* bytes) {
  return (Vec<64>::F32)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)bytes)));
}
#endif

// Bytes of as many lanes as an int32 vector has, and back: compilers convert short vectors of bytes one by one.
template <int kBytes>
struct Bytes {
  using I32 = typename Vec<kBytes>::I32;
  using F32 = typename Vec<kBytes>::F32;
  static constexpr int kLanes = kBytes / 4;
  uint32_t words[kLanes / 4] = {};

  // Lane i ^ kBy in lane i.
  template <int kBy>
  static INLINE I32 swapped(const I32& x) {
    I32 y;
    for (int i = 0; i < kLanes; i++) y[i] = i ^ kBy;
#ifdef __clang__
    for (int i = 0; i < kLanes; i++) y[i] = x[i ^ kBy];
    return y;
#else
    return __builtin_shuffle(x, y);
#endif
  }

  // Sets them to 0 where a flag is 0, to 1 where it is -1.
  INLINE void set(const I32& flags) {
    if constexpr (kBytes == 64) {
      store(words, __builtin_convertvector(flags & 1, typename Vec<kBytes>::Quarter));
    } else {
      I32 place;
      for (int i = 0; i < kLanes; i++) place[i] = 1 << i % 4 * 8;
      I32 x = flags & place;
      x |= swapped<1>(x);
      x |= swapped<2>(x);
      for (int i = 0; i < kLanes / 4; i++) words[i] = x[4 * i];
    }
  }

  // Returns them, below 128, as numbers: a byte in its place, times a power of two, which is exact.
  INLINE F32 numbers() const {
#if defined(__x86_64__) && !defined(__clang__)  // which does without
    if constexpr (kBytes == 64) return numbers_avx512(words);
#endif
    I32 x, place;
    F32 factor;
    for (int i = 0; i < kLanes; i++)
      x[i] = words[i / 4], place[i] = 127 << i % 4 * 8, factor[i] = 1.0f / (1 << i % 4 * 8);
    return __builtin_convertvector(x & place, F32) * factor;
  }
};

// The most frequent cases are compiled by themselves: binary spikes with a hard reset, and which shortcut there is.
enum Behind { kAnyBehind, kNoShortcut, kFloatShortcut, kCountShortcut };

// Of kMany vectors at once, whose chains of operations over time overlap; the last one has `last` lanes.
template <int kBytes, int kMany, bool kWhole, Behind kBehind>
INLINE void finish_lanes(const Finish& f, int x, int i, int last) {
  using I32 = typename Vec<kBytes>::I32;
  using F32 = typename Vec<kBytes>::F32;
  constexpr int kLanes = kBytes / 4;
  const EventShape& shape = *f.shape;
  constexpr bool kPlain = kBehind != kAnyBehind;
  const int steps = shape.timesteps, bits = kPlain ? 1 : shape.bits;
  const bool fire = kPlain || f.spikes || f.new_state, soft = !kPlain && shape.soft_reset;
  const float* shortcut = kPlain && kBehind != kFloatShortcut ? nullptr : f.shortcut;
  float* currents = kPlain ? nullptr : f.currents;
  const float decay = shape.decay, gain = shape.gain, threshold = shape.threshold;
  const int64_t at = (int64_t)x * shape.out_channels + i;
  const int32_t* sums = f.sums ? f.sums + (size_t)x * f.step_sums + i : nullptr;
  F32 v[kMany] = {}, scale[kMany] = {}, bias[kMany] = {};
  for (int k = 0; k < kMany; k++) {
    const int n = kWhole || k < kMany - 1 ? kLanes : last;
    if (f.sums) scale[k] = load<F32>(f.scale + i + k * kLanes), bias[k] = load<F32>(f.bias + i + k * kLanes);
    if (f.state) v[k] = load<F32>(f.state + at + k * kLanes, n);
  }
  for (int t = 0; t < steps; t++, sums += bits * f.width) {
#pragma GCC unroll 4
    for (int k = 0; k < kMany; k++) {
      const int n = kWhole || k < kMany - 1 ? kLanes : last;
      const int64_t here = at + t * f.step + k * kLanes;
      F32 current;
      if (kPlain || f.sums) {
        F32 total;
        if (!kPlain && f.floats) {
          total = load<F32>(sums + k * kLanes);
          for (int b = 1; b < bits; b++) total += load<F32>(sums + b * f.width + k * kLanes) * (float)(1 << b);
        } else {
          I32 sum = load<I32>(sums + k * kLanes);
          for (int b = 1; b < bits; b++) sum += load<I32>(sums + b * f.width + k * kLanes) << b;
          total = __builtin_convertvector(sum, F32);
        }
        current = total * scale[k] + bias[k];
      } else {
        current = load<F32>(f.given + at + t * f.given_step + k * kLanes, n);
      }
      if (shortcut) current = current + load<F32>(shortcut + here, n);
      Bytes<kBytes> counts, spikes;
      if (kBehind == kCountShortcut || (!kPlain && f.counts)) {
        std::memcpy(counts.words, f.counts + here, kWhole ? kLanes : n);
        current = current + counts.numbers();
      }
      if (currents) store(currents + here, current, n);
      if (!fire) continue;
      const F32 u = v[k] * decay + current * gain;
      const I32 fired = u >= threshold;
      v[k] = (F32)(soft ? ((I32)(u - threshold) & fired) | ((I32)u & ~fired) : (I32)u & ~fired);
      if (!kPlain && !f.spikes) continue;
      spikes.set(fired);
      std::memcpy(f.spikes + here, spikes.words, kWhole ? kLanes : n);
    }
  }
  if (f.new_state)
    for (int k = 0; k < kMany; k++) store(f.new_state + at + k * kLanes, v[k], kWhole || k < kMany - 1 ? kLanes : last);
}

template <int kBytes, Behind kBehind>
INLINE void finish_positions(const Finish& f) {
  constexpr int kLanes = kBytes / 4;
  for (int x = 0; x < f.positions; x++) {
    int i = 0;
    for (; i + 2 * kLanes <= f.channels; i += 2 * kLanes) finish_lanes<kBytes, 2, true, kBehind>(f, x, i, kLanes);
    for (; i < f.channels; i += kLanes)
      finish_lanes<kBytes, 1, false, kBehind>(f, x, i, std::min(kLanes, f.channels - i));
  }
}
template <int kBytes>
INLINE void finish(const Finish& f) {
  const EventShape& s = *f.shape;
  if (!f.sums || f.floats || s.bits > 1 || s.soft_reset || f.currents || !f.spikes)
    finish_positions<kBytes, kAnyBehind>(f);
  else if (!f.shortcut && !f.counts)
    finish_positions<kBytes, kNoShortcut>(f);
  else if (!f.counts)
    finish_positions<kBytes, kFloatShortcut>(f);
  else if (!f.shortcut)
    finish_positions<kBytes, kCountShortcut>(f);
  else
    finish_positions<kBytes, kAnyBehind>(f);
}

// Patterns of a group: bit j of out[i] is bit shift[j] of plane[j][i].
struct Gather {
  int planes;
  const uint8_t* plane[kPlanes];
  int shift[kPlanes];
  size_t n;
  uint8_t* out;
};

template <int kBytes>
INLINE void gather(const Gather& g) {
  using U8 = typename Vec<kBytes>::U8;
  for (size_t i = 0; i < g.n; i += kBytes) {
    const int n = (int)std::min<size_t>(kBytes, g.n - i);
    U8 pattern = {};
    for (int j = 0; j < g.planes; j++)
      pattern |= (load<U8>(g.plane[j] + i, n) >> (uint8_t)g.shift[j] & (uint8_t)1) << (uint8_t)j;
    store(g.out + i, pattern, n);
  }
}

// Channels of the bytes of a word that are not 0, for all 256 choices.
struct Table {
  uint16_t channels[256][8];
  uint8_t count[256];
  constexpr Table() : channels(), count() {
    for (int m = 0; m < 256; m++)
      for (int c = 0; c < 8; c++)
        if (m >> c & 1) channels[m][count[m]++] = c;
  }
};
constexpr Table kSet;

int count_bits(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  return ((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;
}

// Writes the indices of the bytes that are not 0 (and at most 127); more behind them is overwritten, kSpare at most.
constexpr int kSpare = 32;
INLINE uint16_t* indices_word(uint64_t word, int i, uint16_t* out) {
  typedef uint16_t V __attribute__((vector_size(16)));
  word = (word + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
  const int mask = word * 0x0102040810204080 >> 56;  // little-endian
  store(out, load<V>(kSet.channels[mask]) + (uint16_t)i);
  return out + kSet.count[mask];
}
void indices(const uint8_t* bytes, int n, int pixels, uint16_t* out, uint16_t* ends) {
  const uint16_t* first = out;
  for (int x = 0; x < pixels; x++, bytes += n) {
    uint64_t word = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
      std::memcpy(&word, bytes + i, 8);
      out = indices_word(word, i, out);
    }
    if (i < n) {
      word = 0;
      std::memcpy(&word, bytes + i, n - i);
      out = indices_word(word, i, out);
    }
    ends[x] = out - first;
  }
}

// Which channels of each four have a bit set, of four planes at once: a byte for each plane, times `factor`. n is a
// multiple of 4.
template <int kBytes>
INLINE void number_fours(const Gather& g, int factor) {
  using I32 = typename Vec<kBytes>::I32;
  for (size_t i = 0; i < g.n; i += kBytes) {
    const int n = (int)std::min<size_t>(kBytes, g.n - i) / 4;
    I32 all = {};
    for (int j = 0; j < g.planes; j++) {
      I32 x = load<I32>(g.plane[j] + i, n) >> g.shift[j] & 0x01010101;
      x |= x >> 7, x |= x >> 14;
      all |= (x & 15) * factor << 8 * j;
    }
    store(g.out + i, all, n);
  }
}

// The set channels of a row of pixels, and where those of each pixel end (modulo 2^16).
struct Found {
  const uint8_t* pattern;  // of each channel of each pixel
  const uint16_t *channels, *ends;
};

// What lists are made of: the rows of a window, above each other.
struct Rows {
  int rows, columns, channels, step, group;  // step: rows of weights in a column of the window
  Found found[kMostRows];
  uint16_t delta[kMostRows];  // added to channels of the first column
  uint16_t* entries;
  size_t capacity;  // entries of a pattern, at most
  int32_t* begin;
};

// Lists of one pattern: what was found is copied, row after row, column after column.
template <int kBytes, int kRows>
INLINE int merge_rows(const Rows& r) {
  using V = typename Vec<kBytes>::U16;
  constexpr int kLanes = kBytes / 2;
  const int rows = kRows ? kRows : r.rows, columns = r.columns;
  uint16_t* out = r.entries;
  const uint16_t *from[kMostRows], *ends[kMostRows];
  uint16_t delta[kMostRows], at[kMostRows] = {};
  for (int i = 0; i < rows; i++) from[i] = r.found[i].channels, ends[i] = r.found[i].ends, delta[i] = r.delta[i];
  int32_t* begin = r.begin + 1;
  const uint16_t step = r.step;
  int length = *begin = 0;
  for (int x = 0; x < columns; x++) {
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) {
      const uint16_t end = *ends[i]++, n = end - at[i];
      for (int k = 0;;) {
        store(out + length + k, load<V>(from[i] + k) + delta[i]);
        if (__builtin_expect((k += kLanes) >= n, 1)) break;
      }
      length += n, from[i] += n, at[i] = end, delta[i] += step;
    }
    *(begin += 2) = length;
  }
  return length;
}
template <int kBytes>
INLINE int merge(const Rows& r) {
  return r.rows == 3 ? merge_rows<kBytes, 3>(r) : merge_rows<kBytes, 0>(r);
}

// Lists of several patterns, of so many entries each at most: one entry after the other.
int scatter(const Rows& r) {
  const int patterns = 1 << r.group;
  int32_t length[1 << kPlanes];
  for (int p = 0; p < patterns; p++) length[p] = p * (int)r.capacity;
  int32_t* begin = r.begin;
  std::memcpy(begin, length, patterns * sizeof(int32_t));
  uint16_t* entries = r.entries;
  const uint16_t *next[kMostRows], *ends[kMostRows];
  const uint8_t* pattern[kMostRows];
  uint16_t delta[kMostRows], at[kMostRows] = {};
  const int rows = r.rows, C = r.channels, step = r.step;
  for (int i = 0; i < rows; i++)
    next[i] = r.found[i].channels, ends[i] = r.found[i].ends, pattern[i] = r.found[i].pattern, delta[i] = r.delta[i];
  for (int x = 0; x < r.columns; x++) {
    for (int i = 0; i < rows; i++) {
      const uint16_t end = ends[i][x], n = end - at[i], add = delta[i];
      const uint16_t *c = next[i], *stop = c + n;
      const uint8_t* pixel = pattern[i];
      for (; c < stop; c++) entries[length[pixel[*c]]++] = *c + add;
      next[i] = c, at[i] = end, delta[i] += step, pattern[i] += C;
    }
    std::memcpy(begin += patterns, length, patterns * sizeof(int32_t));
  }
  return patterns * (int)r.capacity;
}

// The functions of an instruction set: the templates above, inlined into functions that may use it.
struct Adders {
  void (*of[3][3])(const Addition&);  // groups of 1, 2, 4 planes; blocks of 32, 64, 128 channels
  int widest;                         // block
};
struct Code {
  Adders int16, float32;                 // by type of the weights
  void (*look_up[3][2])(const LookUp&);  // groups of 1, 2, 4 planes; blocks of 32, 64 channels
  void (*finish)(const Finish&);
  void (*gather)(const Gather&);
  void (*number_fours)(const Gather&, int);
  int (*merge)(const Rows&);
  void (*indices)(const uint8_t*, int, int, uint16_t*, uint16_t*);
  int bytes;  // of a vector
};

#define INSTRUCTION_SET(Name, bytes, widest, target, indices)                                 \
  struct Name {                                                                               \
    template <class W, int kGroup, int kWidth>                                                \
    target static void add(const Addition& a) {                                               \
      add_rows<W, bytes, kGroup, kWidth>(a);                                                  \
    }                                                                                         \
    template <int kGroup, int kWidth>                                                         \
    target static void look_up(const LookUp& l) {                                             \
      look_up_rows<bytes, kGroup, kWidth>(l);                                                 \
    }                                                                                         \
    template <class W, int kMost>                                                             \
    static constexpr Adders adders() {                                                        \
      constexpr int k64 = kMost < 64 ? kMost : 64;                                            \
      return {{{add<W, 1, 32>, add<W, 1, k64>, add<W, 1, kMost>},                             \
               {add<W, 2, 32>, add<W, 2, k64>, add<W, 2, kMost>},                             \
               {add<W, 4, 32>, add<W, 4, k64>, add<W, 4, kMost>}},                            \
              kMost};                                                                         \
    }                                                                                         \
    target static void end(const Finish& f) { finish<bytes>(f); }                             \
    target static void patterns(const Gather& g) { gather<bytes>(g); }                        \
    target static void fours(const Gather& g, int factor) { number_fours<bytes>(g, factor); } \
    target static int lists(const Rows& r) { return merge<(bytes < 32 ? 32 : bytes)>(r); }    \
  };                                                                                          \
  constexpr Code k##Name = {Name::adders<int16_t, widest>(),                                  \
                            Name::adders < float,                                             \
                            widest / 2 < 32 ? 32 : widest / 2 > (),                           \
                            {{Name::look_up<1, 32>, Name::look_up<1, 64>},                    \
                             {Name::look_up<2, 32>, Name::look_up<2, 64>},                    \
                             {Name::look_up<4, 32>, Name::look_up<4, 64>}},                   \
                            Name::end,                                                        \
                            Name::patterns,                                                   \
                            Name::fours,                                                      \
                            Name::lists,                                                      \
                            indices,                                                          \
                            bytes}

INSTRUCTION_SET(Portable, 16, 32, , indices);
#ifdef __x86_64__
AVX512 void indices_avx512(const uint8_t* bytes, int n, int pixels, uint16_t* out, uint16_t* ends) {
  const uint16_t* first = out;
  const __m512i zero_to_15 = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int x = 0; x < pixels; x++, bytes += n) {
    __m512i index = zero_to_15;
    for (int i = 0; i < n; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
      const __m128i some = n - i >= 16 ? _mm_loadu_si128((const __m128i*)(bytes + i))
                                       : _mm_maskz_loadu_epi8((1 << (n - i)) - 1, bytes + i);
      const __mmask16 set = _mm_test_epi8_mask(some, some);
      _mm256_storeu_si256((__m256i*)out, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(set, index)));
      out += __builtin_popcount(set);
    }
    ends[x] = out - first;
  }
}
INSTRUCTION_SET(Avx2, 32, 64, __attribute__((target("avx2"))), indices);
INSTRUCTION_SET(Avx512, 64, 128, AVX512, indices_avx512);
#endif

enum { kChoose, kPortableSet, kAvx2Set, kAvx512Set };

// The processor's best one, or the one that SNNZOO_INSTRUCTIONS names, where the processor has it.
int best_set() {
  const char* asked = std::getenv("SNNZOO_INSTRUCTIONS");
  const auto is = [asked](const char* name) { return asked && !std::strcmp(asked, name); };
  if (is("portable")) return kPortableSet;
#ifdef __x86_64__
  __builtin_cpu_init();
  const auto all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (all && !is("avx2")) return kAvx512Set;
  if (__builtin_cpu_supports("avx2")) return kAvx2Set;
#endif
  return kPortableSet;
}

const Code& code_of(int set) {
#ifdef __x86_64__
  if (set == kAvx512Set) return kAvx512;
  if (set == kAvx2Set) return kAvx2;
#endif
  return kPortable;
}

// Weights of a layer, block by block: a row for each tap and channel, or, a table, 16 rows for each tap and four
// channels, the sums of those of them that a number has bits for.
struct Packed {
  std::vector<Block> blocks;  // none where the layer has no table
  std::unique_ptr<void, void (*)(void*)> memory{nullptr, std::free};
};

struct Layer {
  EventShape shape;
  const Code* code;
  const Adders* adders;
  bool floats;
  Packed rows, table;
  std::vector<float> scale, bias;
};

// How many of these numbers can be added up in int16, whichever are taken.
int how_many(std::vector<int>& numbers) {
  std::sort(numbers.begin(), numbers.end(), std::greater<int>());
  int sum = 0;
  for (size_t n = 0; n < numbers.size(); n++)
    if ((sum += numbers[n]) > 32767) return n;
  return numbers.size();
}

struct Scratch {
  Buffer<uint8_t> patterns, index;
  Buffer<uint16_t> channels, ends, entries;
  Buffer<int32_t> begin, sums;
  std::vector<Strip> strips;
  std::vector<Lists> lists;
  std::vector<int64_t> rows;
};
thread_local Scratch scratch;

constexpr size_t kCache = 400000;    // bytes of weights that stay in a cache of the second level
constexpr size_t kNear = 1 << 19;    // bytes of a table, at most
constexpr size_t kAtOnce = 1 << 22;  // entries of lists that are made before they are used, at most
constexpr float kLeast = 40000;      // nanoseconds of work that pay for a task

void parallel(const EventCall& call, int64_t tasks, const std::function<void(int64_t)>& task) {
  const auto one = [](void* data, size_t i) { (*(const std::function<void(int64_t)>*)data)(i); };
  if (call.parallel_for && tasks > 1)
    call.parallel_for(call.pool, one, (void*)&task, tasks);
  else
    for (int64_t i = 0; i < tasks; i++) task(i);
}

struct Run {
  const Layer& layer;
  const EventCall& call;
  int64_t batch, height, width, out_height, out_width;
  int planes, group = 0, groups = 0;
  bool table = false;
  int64_t positions, tiles, strips;  // of a strip; strips of a row; strips in all
  size_t columns;                    // of a strip, at most
  size_t list_entries;               // of a pattern, at most
  size_t entries, begins;            // of a strip, at most

  Run(const Layer& layer, const EventCall& call);
  float choose_group();
  Gather planes_of(int64_t pixel, int first, int most, size_t n, uint8_t* out) const;
  void run();
  Strip strip(int64_t i) const;
  void list(int64_t first, int64_t n, Strip* strips, Lists* lists, uint16_t* entry, int32_t* begin) const;
  void add(const Strip* strips, const Lists* lists, int64_t n, const Block& block) const;
};

Run::Run(const Layer& layer, const EventCall& call)
    : layer(layer),
      call(call),
      batch(call.batch),
      height(call.height),
      width(call.width),
      planes(layer.shape.timesteps * layer.shape.bits) {
  const EventShape& s = layer.shape;
  const int pads = s.pad_top | s.pad_left | s.pad_bottom | s.pad_right;
  // Positions of a 1 x 1 convolution are alike, those of several images, too.
  if (s.kernel_h * s.kernel_w * s.stride_h * s.stride_w == 1 && !pads) width *= batch * height, batch = height = 1;
  out_height = (height + s.pad_top + s.pad_bottom - s.kernel_h) / s.stride_h + 1;
  out_width = (width + s.pad_left + s.pad_right - s.kernel_w) / s.stride_w + 1;
  const int64_t most = kRows / (s.kernel_h * s.channels);
  positions = std::min<int64_t>({kPositions, out_width, (most - s.kernel_w) / s.stride_w + 1, 1 + 1024 / planes});
  columns = (positions - 1) * s.stride_w + s.kernel_w;
  list_entries = s.kernel_h * columns * s.channels;
  positions = std::max<int64_t>(positions, 1);
  tiles = (out_width + positions - 1) / positions;
  strips = batch * tiles * out_height;
}

// Chooses how many planes make a group, from the spikes of some pixels; returns how long a strip will take, in
// nanoseconds. The numbers are fits to the layers of three networks on one processor (Zen 4, AVX-512, with work at its
// other thread).
float Run::choose_group() {
  const EventShape& shape = layer.shape;
  const int C = shape.channels;
  const int64_t pixels = batch * height * width, looked = std::min<int64_t>(pixels, 32);
  uint64_t* words = (uint64_t*)scratch.patterns.need((C + 7) / 8 * 8 + 64);
  int64_t found[3] = {};  // rows of weights to add, by form
  for (int64_t i = 0; i < looked; i++) {
    for (int g = 0; g < planes; g += kPlanes) {
      words[(C - 1) / 8] = 0;
      layer.code->gather(planes_of(pixels * i / looked, g, kPlanes, C, (uint8_t*)words));
      for (int k = 0; k < (C + 7) / 8; k++) {
        const uint64_t w = words[k], pairs = w | w >> 1, all = pairs | pairs >> 2;
        constexpr uint64_t kOnes = 0x0101010101010101;
        found[0] += count_bits(w), found[1] += count_bits(pairs & 5 * kOnes), found[2] += count_bits(all & kOnes);
      }
    }
  }
  float least = 0;
  for (int i = 0; i < 3; i++) {
    const int size = 1 << i, many = (planes + size - 1) / size;
    if (shape.group ? size != shape.group : size >= 2 * planes) continue;
    const float added = (float)found[i] / std::max<int64_t>(looked, 1) * shape.kernel_h * shape.kernel_w,
                lists = many * ((1 << size) - 1);
    // Nanoseconds: of an entry, of its weights in 32 channels, of a list in each block, of its sums in 32 channels.
    constexpr float kEntry[] = {0.05f, 0.1f, 0.1f}, kAdd[] = {0.5f, 0.7f, 0.87f}, kList[] = {3, 20, 4},
                    kSum[] = {26, 13, 8};
    float cost = added * kEntry[i];
    for (const Block& block : layer.rows.blocks)
      cost += added * (kAdd[i] + 2.0f * size / block.limit) * (layer.floats ? 2 : 1) * block.width / 32 +
              lists * (kList[i] + kSum[i] * block.width / 32);
    if (!group || cost < least) least = cost, group = size, groups = many;
  }
  if (!layer.table.blocks.empty() && (!shape.group || shape.group == kTable)) {
    const int size = planes < 3 ? planes : kPlanes, many = (planes + size - 1) / size;
    float cost = 0;
    for (const Block& block : layer.table.blocks)
      cost += many * size * (0.54f * shape.kernel_h * shape.kernel_w * C / 4 + 4) * block.width / 32;
    if (!group || cost < least) least = cost, group = size, groups = many, table = true;
  }
  return least * positions;
}

Gather Run::planes_of(int64_t pixel, int first, int most, size_t n, uint8_t* out) const {
  Gather gather{std::min(most, planes - first), {}, {}, n, out};
  for (int j = 0; j < gather.planes; j++) {
    const int64_t step = (first + j) / layer.shape.bits;
    gather.plane[j] = call.spikes + (step * batch * height * width + pixel) * layer.shape.channels;
    gather.shift[j] = (first + j) % layer.shape.bits;
  }
  return gather;
}

Strip Run::strip(int64_t i) const {
  const EventShape& shape = layer.shape;
  Strip s;
  s.row = i % out_height;
  s.first = i / out_height % tiles * positions;
  s.image = i / out_height / tiles;
  s.positions = std::min(positions, out_width - s.first);
  const int64_t left = s.first * shape.stride_w - shape.pad_left,
                right = left + (s.positions - 1) * shape.stride_w + shape.kernel_w;
  s.from = std::min(std::max<int64_t>(0, left), width);
  s.columns = std::max<int64_t>(0, std::min(width, right) - s.from);
  return s;
}

// Lists of n strips, of all groups.
void Run::list(int64_t first, int64_t n, Strip* strips, Lists* lists, uint16_t* entry, int32_t* begin) const {
  const EventShape& shape = layer.shape;
  const Code& code = *layer.code;
  const int C = shape.channels, K = shape.kernel_h;
  const size_t row = columns * C + kSpare;
  // What was found in the last K input rows, for each group.
  uint8_t* patterns = scratch.patterns.need(K * groups * row);
  uint16_t* channels = scratch.channels.need(K * groups * row);
  uint16_t* ends = scratch.ends.need(K * groups * columns);
  std::vector<int64_t>& has = scratch.rows;
  has.assign(K, -1);
  for (int64_t i = 0; i < n; i++) {
    const Strip strip = strips[i] = this->strip(first + i);
    const int64_t top = strip.row * shape.stride_h - shape.pad_top;
    const int64_t y0 = std::max<int64_t>(top, 0), y1 = std::max(y0, std::min(top + K, height));
    for (int64_t y = y0; y < y1; y++) {
      const int64_t key = (strip.image * tiles + strip.first / positions) * height + y;
      if (has[y % K] == key) continue;
      has[y % K] = key;
      for (int g = 0; g < groups; g++) {
        const size_t slot = y % K * groups + g;
        uint8_t* pattern = patterns + slot * row;
        const int64_t pixel = (strip.image * height + y) * width + strip.from;
        const Gather gather = planes_of(pixel, g * group, group, (size_t)strip.columns * C, pattern);
        if (table) {
          code.number_fours(gather, layer.table.blocks[0].width / 4);
          continue;
        }
        code.gather(gather);
        code.indices(pattern, C, strip.columns, channels + slot * row, ends + slot * columns);
      }
    }
    for (int g = 0; g < groups && table; g++) {
      uint8_t* index = scratch.index.need(n * groups * columns * K * C) + (i * groups + g) * columns * K * C;
      for (int k = 0; k < K; k++) {
        const int64_t y = top + k;
        const uint8_t* from = patterns + (std::max<int64_t>(y, 0) % K * groups + g) * row;
        for (int x = 0; x < strip.columns; x++)
          if (y0 <= y && y < y1)
            std::memcpy(index + (x * K + k) * C, from + x * C, C);
          else
            std::memset(index + (x * K + k) * C, 0, C);
      }
    }
    for (int g = 0; g < groups && !table; g++) {
      Rows made{(int)(y1 - y0), strip.columns, C, K * C, group, {}, {}, entry, list_entries, begin};
      for (int64_t y = y0; y < y1; y++) {
        const size_t slot = y % K * groups + g;
        made.found[y - y0] = {patterns + slot * row, channels + slot * row, ends + slot * columns};
        made.delta[y - y0] = (y - top) * C;
      }
      lists[i * groups + g] = {entry, begin};
      entry += (group == 1 ? code.merge : scatter)(made) + kSpare;
      begin += (strip.columns + 1) << group;
    }
  }
}

// What a block of channels gives at n strips.
void Run::add(const Strip* strips, const Lists* lists, int64_t n, const Block& block) const {
  const EventShape& shape = layer.shape;
  const int step = groups * group;
  constexpr int kMany = 8;  // positions whose sums are made before neurons follow: they stay in the nearest cache
  int32_t* sums = scratch.sums.need(kMany * step * kWidest);
  for (int64_t i = 0; i < n; i++) {
    const Strip& strip = strips[i];
    const int left = strip.first * shape.stride_w - shape.pad_left - strip.from;
    for (int x = 0; x < strip.positions; x += kMany) {
      const int end = std::min(x + kMany, strip.positions);
      for (int g = 0; g < groups; g++) {
        int32_t* out = sums + g * group * block.width;
        if (table) {
          const int fours = shape.kernel_h * shape.channels / 4;
          const uint8_t* index = scratch.index.need(0) + (size_t)(i * groups + g) * columns * fours * 4;
          layer.code->look_up[group / 2][block.width / 64]({index, x, end, strip.columns, left, shape.stride_w,
                                                            shape.kernel_w, fours, block.limit,
                                                            (const int16_t*)block.weight, out, step * block.width});
        } else {
          layer.adders->of[group / 2][block.width / 64](
              {lists[i * groups + g], x, end, strip.columns, left, shape.stride_w, shape.kernel_w,
               shape.kernel_h * shape.channels, block.limit, block.weight, out, step * block.width});
        }
      }
      const int64_t at =
          ((strip.image * out_height + strip.row) * out_width + strip.first + x) * shape.out_channels + block.first;
      const auto here = [at](auto* p) { return p ? p + at : p; };
      layer.code->finish(
          {&shape, end - x, step * block.width, block.width, std::min(block.width, shape.out_channels - block.first),
           batch * out_height * out_width * shape.out_channels, sums, layer.floats, nullptr, 0,
           &layer.scale[block.first], &layer.bias[block.first], here(call.shortcut), here(call.state),
           here(call.shortcut_counts), here(call.out_spikes), here(call.out_currents), here(call.out_state)});
    }
  }
}

void Run::run() {
  const EventShape& shape = layer.shape;
  const float cost = choose_group();
  entries = groups * ((group == 1 ? 1 : (size_t)1 << group) * list_entries + 2 * kSpare);
  begins = ((size_t)groups << group) * (columns + 1);
  const int64_t most = std::max<int64_t>(1, kAtOnce / entries);
  const int64_t tasks = std::max<int64_t>(1, std::min<int64_t>(call.tasks, (int64_t)(cost * strips / kLeast)));
  const auto room = [&](int64_t n, auto&& with) {
    scratch.strips.resize(n), scratch.lists.resize(n * groups);
    with(scratch.strips.data(), scratch.lists.data(), scratch.entries.need(n * entries),
         scratch.begin.need(n * begins));
  };
  const std::vector<Block>& all = (table ? layer.table : layer.rows).blocks;
  const int64_t blocks = all.size();
  const int64_t bytes =
      (int64_t)shape.kernel_h * shape.kernel_w * shape.channels * shape.out_channels * (layer.floats ? 4 : 2);
  if (table || bytes <= (int64_t)kCache) {
    // Since this layer's last run others have filled the caches; rows are used in no order that a processor foresees.
    for (const Block& block : all)
      for (const char* line = (const char*)block.weight; line < (const char*)block.end; line += 64)
        __builtin_prefetch(line, 0, 2);
    // All weights stay near: each task makes the lists of a few strips and goes through the blocks.
    const int64_t few = table ? 1 : std::min<int64_t>(most, 2), parts = std::min(tasks, strips);
    parallel(call, parts, [&](int64_t part) {
      const int64_t end = strips * (part + 1) / parts;
      for (int64_t i = strips * part / parts; i < end; i += few) {
        const int64_t n = std::min(few, end - i);
        room(n, [&](Strip* strip, Lists* lists, uint16_t* entry, int32_t* begin) {
          list(i, n, strip, lists, entry, begin);
          for (const Block& block : all) add(strip, lists, n, block);
        });
      }
    });
    return;
  }
  // The weights of a block are used for as many strips as possible: first all lists, then block by block.
  for (int64_t i = 0; i < strips; i += most) {
    const int64_t n = std::min(most, strips - i), parts = std::min(tasks, n);
    room(n, [&](Strip* strip, Lists* lists, uint16_t* entry, int32_t* begin) {
      parallel(call, parts, [&](int64_t part) {
        const int64_t a = n * part / parts, b = n * (part + 1) / parts;
        list(i + a, b - a, strip + a, lists + a * groups, entry + a * entries, begin + a * begins);
      });
      const int64_t cuts = std::min(n, (tasks + blocks - 1) / blocks);
      parallel(call, tasks == 1 ? 1 : blocks * cuts, [&](int64_t task) {
        for (int64_t k = task; k < (tasks == 1 ? blocks : task + 1); k++) {
          const int64_t cut = k % cuts, a = n * cut / cuts, b = n * (cut + 1) / cuts;
          add(strip + a, lists + a * groups, b - a, all[k / cuts]);
        }
      });
    });
  }
}

// How many of these numbers, in their order, can be added up in int16: some columns of them, or a half, a quarter ...
// of one, wherever such a run starts.
int how_many_in_turn(const std::vector<int>& numbers, int column) {
  int all = numbers.size();
  for (int n = all; n > 0; n = n > column ? n - column : n % 2 && n > 1 ? 1 : n / 2) {
    int64_t most = 0;
    for (int at = 0; at + n <= all; at += std::min(n, column))
      most = std::max(most, std::accumulate(&numbers[at], &numbers[at] + n, (int64_t)0));
    if (most <= 32767) return n;
  }
  return 0;
}

// Packs weights [Co, C, kernel_h, kernel_w]; false for some that int16 sums, or int32 sums of all bits, cannot take.
template <class W>
bool pack(const Layer& layer, const W* weight, int padded, bool table, Packed* packed) {
  constexpr bool kFloats = std::is_same_v<W, float>;
  const EventShape& s = layer.shape;
  const int C = s.channels, taps = s.kernel_h * s.kernel_w, many = table ? 4 : 1, values = table ? 16 : 1;
  const size_t rows = (size_t)taps * C / many * values;
  packed->memory.reset(std::aligned_alloc(64, rows * padded * sizeof(W)));
  W* to = (W*)packed->memory.get();
  if (!to) return false;
  // Of 2 n lanes of int16, channel i lies in lane 2 i and channel n + i in lane 2 i + 1, as `widen` reads them.
  const int half = layer.code->bytes / 4;
  const auto lane = [half](int o) {
    const int within = o % (2 * half);
    return kFloats ? o : o - within + (within < half ? 2 * within : 2 * (within - half) + 1);
  };
  int widest = std::min(s.block ? s.block : taps * C < 2000 ? 64 : kWidest, layer.adders->widest);
  if (table) widest = layer.code->bytes < 64 || padded % 64 || s.block == 32 ? 32 : 64;  // the same for all blocks
  for (int first = 0, width; first < padded; first += width) {
    for (width = widest; width > padded - first;) width /= 2;
    const int n = std::min(width, s.out_channels - first);
    const auto from = [&](int o, int c, int tap) { return weight[((size_t)(first + o) * C + c) * taps + tap]; };
    int limit = rows;
    if constexpr (!kFloats) {
      for (int o = 0; o < n; o++)
        for (int sign : {1, -1}) {
          std::vector<int> most(taps * C / many);
          for (int tap = 0; tap < taps; tap++)  // column by column
            for (int c = 0; c < C; c++)
              most[(tap * C + c) / many] +=
                  std::max(0, sign * from(o, c, tap % s.kernel_h * s.kernel_w + tap / s.kernel_h));
          limit = std::min(limit, table ? how_many_in_turn(most, s.kernel_h * C / many) : how_many(most));
          if (std::accumulate(most.begin(), most.end(), (int64_t)0) * ((1 << s.bits) - 1) > INT32_MAX) return false;
        }
      if (limit < 1) return false;
    }
    packed->blocks.push_back({first, width, limit, to, to + rows * width});
    for (int dx = 0; dx < s.kernel_w; dx++)
      for (int dy = 0; dy < s.kernel_h; dy++)
        for (int c = 0; c < C; c += many)
          for (int value = 0; value < values; value++, to += width)
            for (int o = 0; o < width; o++) {
              W sum = 0;
              for (int k = 0; k < many && o < n; k++)
                if (!table || value >> k & 1) sum += from(o, c + k, dy * s.kernel_w + dx);
              to[lane(o)] = sum;
            }
  }
  return true;
}

// Whether numbers are in range, so that no product of them overflows.
bool sensible(const EventShape& s) {
  for (int n : {s.channels, s.out_channels, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.timesteps, s.bits})
    if (n < 1 || n > kMostSide) return false;
  for (int n : {s.pad_top, s.pad_left, s.pad_bottom, s.pad_right})
    if (n < 0 || n > kMostSide) return false;
  const int64_t rows = (int64_t)s.kernel_h * s.kernel_w * s.channels;
  const bool forced = s.isa >= 0 && s.isa <= best_set() &&
                      (s.group == 0 || s.group == 1 || s.group == 2 || s.group == 4 || s.group == kTable) &&
                      (s.block == 0 || s.block == 32 || s.block == 64 || s.block == 128);
  return forced && s.kernel_h <= kMostRows && s.bits <= kPlanes && s.timesteps <= kMostSteps && rows <= kRows &&
         rows * s.out_channels < (int64_t)1 << 31;
}

}  // namespace

extern "C" {

// A layer: weights [Co, C, kernel_h, kernel_w] in int16, above -32768, or in float32, the other one null; scale and
// bias [Co]. Null for a shape or weights that this code does not take.
void* event_layer(const EventShape* shape, const int16_t* int16, const float* float32, const float* scale,
                  const float* bias) {
  if (!sensible(*shape)) return nullptr;
  auto layer = std::make_unique<Layer>();
  layer->shape = *shape;
  layer->code = &code_of(shape->isa ? shape->isa : best_set());
  layer->floats = float32;
  layer->adders = float32 ? &layer->code->float32 : &layer->code->int16;
  const int Co = shape->out_channels, padded = (Co + kPad - 1) / kPad * kPad;
  layer->scale.assign(padded, 0), layer->bias.assign(padded, 0);
  std::copy_n(scale, Co, layer->scale.begin());
  std::copy_n(bias, Co, layer->bias.begin());
  const bool made =
      float32 ? pack(*layer, float32, padded, false, &layer->rows) : pack(*layer, int16, padded, false, &layer->rows);
  if (!made) return nullptr;
  const size_t bytes = (size_t)shape->kernel_h * shape->kernel_w * shape->channels * 4 * padded * sizeof(int16_t);
  if (int16 && shape->channels % 4 == 0 && bytes <= kNear && !pack(*layer, int16, padded, true, &layer->table))
    layer->table.blocks.clear();
  if (shape->group == kTable && layer->table.blocks.empty()) layer->shape.group = 1;
  return layer.release();
}

void event_delete(void* layer) { delete (Layer*)layer; }

// Returns 0, or 1 for images that are smaller than the kernel or too large.
int event_run(const void* layer, const EventCall* call) {
  if (call->batch < 0 || call->height < 0 || call->width < 0 || call->height > kMostSide || call->width > kMostSide)
    return 1;
  Run run(*(const Layer*)layer, *call);
  if (call->batch && (run.out_height < 1 || run.out_width < 1)) return 1;
  if (run.strips > 0) run.run();
  return 0;
}

// Neurons alone: of shape, only timesteps, soft_reset, decay, gain and threshold play a part. `currents` are [T, size],
// or [size] with `repeat`, the same at every step; spikes [T, size], states [size] or null.
void event_neurons(const EventShape* shape, const float* currents, int repeat, const float* state, uint8_t* spikes,
                   float* last, int64_t size, const EventCall* call) {
  const Code& code = code_of(shape->isa ? shape->isa : best_set());
  EventShape plain = *shape;
  plain.bits = 1;
  constexpr int64_t kChunk = 1 << 13;  // neurons of a task
  parallel(*call, (size + kChunk - 1) / kChunk, [&](int64_t i) {
    const int64_t at = i * kChunk, n = std::min(kChunk, size - at);
    const auto here = [at](auto* p) { return p ? p + at : p; };
    code.finish({&plain, 1, 0, 0, (int)n, size, nullptr, false, currents + at, repeat ? 0 : size, nullptr, nullptr,
                 nullptr, here(state), nullptr, here(spikes), nullptr, here(last)});
  });
}

int event_best_set() { return best_set(); }

}  // extern "C"
