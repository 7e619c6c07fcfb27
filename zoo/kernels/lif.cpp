// LIF neurons on a CPU, forward and backward, with the normalisation and the addition in front of them.
//
// The input current of step t is  norm(x[t]) + norm'(r[t]), each part optional. One pass over the data computes currents,
// all time steps and spikes; membranes live in registers, in float32 (float64 for float64 data), never in memory. The
// backward pass recomputes them from x and r, so that nothing else needs to be saved. What is computed is what
// zoo/neurons/lif.py says in plain PyTorch, operation for operation: build with -ffp-contract=off.
//
// Built for one kind of neuron at a time, so that the compiler can unroll time and vectorise over neurons:
//   SCALAR      type of the data: float, double or BF16       STEPS    time steps
//   SURROGATE   0 triangle, 1 rectangle, 2 arctan, 3 sigmoid (zoo/neurons/surrogate.py)
//   SOFT        soft reset        DETACH   no gradient through the reset
//   GAIN        the current has a factor (decay_input)        LEAK   decay and gain want gradients

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

namespace {

struct BF16 {
  uint16_t bits;
};

inline float load(float v) { return v; }
inline double load(double v) { return v; }
inline float load(int8_t v) { return v; }
inline float load(BF16 v) {
  uint32_t wide = uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}
inline void store(float& to, float v) { to = v; }
inline void store(double& to, double v) { to = v; }
inline void store(BF16& to, float v) {  // to nearest, ties to even; any NaN becomes the quiet one
  uint32_t wide;
  std::memcpy(&wide, &v, 4);
  uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  to.bits = uint16_t(v != v ? 0x7fc0 : rounded);
}

template <class S>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};

using S = SCALAR;
using A = Wide<S>::type;
constexpr int kSteps = STEPS;
constexpr int64_t kSegment = 256;  // elements: what one thread works on at a time
constexpr int kFlush = 32;         // segments whose sums are kept in the data's own precision before they go to double

}  // namespace

extern "C" {

// One part of the current. Statistics and gradients of the affine map are per channel, in the wide type.
struct Branch {
  const void* x;        // [T, ...], or [1, ...] if the same at every step; null: absent
  const void* weight;   // null: 1
  const void* bias;     // null: 0
  void* mean;           // null: no normalisation
  void* var;            // biased
  void* grad;           // out: gradient of x
  void* grad_weight;    // out
  void* grad_bias;      // out
  double eps;
  int32_t batch_stats;  // statistics come from this batch
};

struct Args {
  Branch x, r;
  void* spikes;      // forward: out [T, step]
  const void* grad;  // backward: of the spikes
  void* current;     // backward: out, gradient of the current, in the shape of x
  double* leak;      // backward: out, gradients of decay and gain, where LEAK is set
  int64_t step;      // elements of one time step
  int64_t channels;  // 0: no channel matters
  int64_t inner;     // elements from one channel to the next; 1 where channels are the fastest axis
  int32_t repeat, threads;
  double decay, gain, threshold, width;
};

}  // extern "C"

namespace {

// How one time step is cut into segments: whole rows of channels, or pieces of one channel's plane.
struct Cut {
  int64_t step, channels, inner, length, count, per_plane;

  explicit Cut(const Args& a) : step(a.step), channels(a.channels), inner(a.inner) {
    if (channels && inner == 1) {
      length = std::max<int64_t>(1, kSegment / channels) * channels;
    } else {
      length = channels ? std::min(inner, kSegment) : kSegment;
    }
    per_plane = planes() ? (inner + length - 1) / length : 0;
    count = planes() ? step / inner * per_plane : (step + length - 1) / length;
  }
  bool planes() const { return channels && inner > 1; }
  int64_t start(int64_t i) const { return planes() ? i / per_plane * inner + i % per_plane * length : i * length; }
  int64_t size(int64_t i) const {
    return planes() ? std::min(length, inner - i % per_plane * length) : std::min(length, step - i * length);
  }
  int64_t channel(int64_t i) const { return i / per_plane % channels; }
};

template <class F>
void parallel(const Args& a, int64_t count, F body) {  // body(thread, first, last)
  if (a.threads <= 1) return body(0, 0, count);
#pragma omp parallel num_threads(a.threads)
  {
    int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
    body(int(i), count * i / n, count * (i + 1) / n);
  }
}

// Values per channel (or none), laid out so that element l of a segment finds its own at position l.
class Tiled {
 public:
  Tiled(const Cut& cut, const std::vector<A>& values) : cut_(cut), values_(values), tile_(cut.length) {
    if (!cut.planes() && !values.empty())
      for (int64_t l = 0; l < cut.length; ++l) tile_[l] = values[l % cut.channels];
  }
  const A* at(int64_t segment) {
    if (cut_.planes()) std::fill(tile_.begin(), tile_.end(), values_[cut_.channel(segment)]);
    return tile_.data();
  }

 private:
  const Cut& cut_;
  const std::vector<A>& values_;
  std::vector<A> tile_;
};

// Sums per channel over all segments of all threads: short sums in A, long ones in double.
class Sums {
 public:
  Sums(const Cut& cut, int threads) : cut_(cut), total_(threads, std::vector<double>(cut.channels)) {}

  class Local {
   public:
    Local(Sums& sums, int thread) : sums_(sums), total_(sums.total_[thread]), part_(sums.cut_.length) {}
    ~Local() { flush(); }
    A* at(int64_t segment) {
      if (++used_ > kFlush || (sums_.cut_.planes() && segment / sums_.cut_.per_plane != plane_)) flush();
      if (sums_.cut_.planes()) plane_ = segment / sums_.cut_.per_plane;
      return part_.data();
    }

   private:
    void flush() {
      const Cut& cut = sums_.cut_;
      if (!cut.channels) return;
      for (int64_t l = 0; l < cut.length; ++l) {
        total_[cut.planes() ? plane_ % cut.channels : l % cut.channels] += part_[l];
        part_[l] = 0;
      }
      used_ = 1;
    }
    Sums& sums_;
    std::vector<double>& total_;
    std::vector<A> part_;
    int64_t plane_ = 0;
    int used_ = 0;
  };

  double of(int64_t channel) const {
    double sum = 0;
    for (const auto& part : total_) sum += part[channel];
    return sum;
  }

 private:
  const Cut& cut_;
  std::vector<std::vector<double>> total_;
};

// A branch of the current with its affine map: norm(x) = x * scale + shift.
struct Part {
  const S* x;
  bool norm;
  std::vector<A> mean, inv, scale, shift;

  Part(const Args& a, const Branch& b) : x(static_cast<const S*>(b.x)), norm(b.mean) {
    if (!norm) return;
    for (auto* v : {&mean, &inv, &scale, &shift}) v->resize(a.channels);
    for (int64_t c = 0; c < a.channels; ++c) {
      mean[c] = static_cast<A*>(b.mean)[c];
      inv[c] = 1 / std::sqrt(static_cast<A*>(b.var)[c] + A(b.eps));
      scale[c] = inv[c] * (b.weight ? static_cast<const A*>(b.weight)[c] : 1);
      shift[c] = (b.bias ? static_cast<const A*>(b.bias)[c] : 0) - mean[c] * scale[c];
    }
  }
};

#define INLINE inline __attribute__((always_inline))

// Sums over the steps of one segment, of d = x - centre and of d squared.
template <int kCount>
void add_moments(const S* __restrict x, int64_t step, const A* __restrict centre, int64_t size, A* __restrict sum,
                 A* __restrict square) {
#pragma omp simd
  for (int64_t l = 0; l < size; ++l) {
    A s = 0, q = 0;
#pragma GCC unroll 16
    for (int t = 0; t < kCount; ++t) {
      const A d = load(x[t * step + l]) - centre[l];
      s += d;
      q += d * d;
    }
    sum[l] += s;
    square[l] += q;
  }
}

// Mean and biased variance of each channel in one pass, around the channel's first value so that nothing cancels.
void statistics(const Args& a, const Branch& b) {
  const Cut cut(a);
  const S* x = static_cast<const S*>(b.x);
  std::vector<A> first(a.channels);
  for (int64_t c = 0; c < a.channels; ++c) first[c] = load(x[c * a.inner]);
  Sums sum(cut, a.threads), square(cut, a.threads);
  parallel(a, cut.count, [&](int thread, int64_t begin, int64_t end) {
    Sums::Local sums(sum, thread), squares(square, thread);
    Tiled centre(cut, first);
    for (int64_t i = begin; i < end; ++i) {
      const auto add = a.repeat ? add_moments<1> : add_moments<kSteps>;
      add(x + cut.start(i), a.step, centre.at(i), cut.size(i), sums.at(i), squares.at(i));
    }
  });
  const double n = double(a.step) / a.channels * (a.repeat ? 1 : kSteps);
  for (int64_t c = 0; c < a.channels; ++c) {
    const double d = sum.of(c) / n;
    static_cast<A*>(b.mean)[c] = A(first[c] + d);
    const double v = square.of(c) / n - d * d;
    static_cast<A*>(b.var)[c] = A(v < 0 ? 0.0 : v);  // and not std::max, which gives 0 for NaN
  }
}

inline double exponential(double x) { return std::exp(x); }
inline float exponential(float x) {  // in a form that vectorises without -ffast-math
  const float y = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
  const float k = std::nearbyint(y * 1.44269504f);
  const float f = (y - k * 0.693359375f) + k * 2.12194440e-4f;  // log 2 in two parts
  float p = 1.9875691e-4f;  // a minimax polynomial (Cephes, expf)
  p = p * f + 1.3981999e-3f;
  p = p * f + 8.3334519e-3f;
  p = p * f + 4.1665796e-2f;
  p = p * f + 1.6666665e-1f;
  p = p * f + 0.5f;
  const float e = p * f * f + f + 1;
  const int32_t power = (int32_t(k) + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, 4);
  return y != y ? y : e * scale;
}

// The surrogate derivative at d = u - threshold; NaN stays NaN.
inline A surrogate(A d, A width, A inverse) {
  if constexpr (SURROGATE == 0) {
    const A y = 1 - std::fabs(d) * inverse;
    return (y < 0 ? A(0) : y) * inverse;
  } else if constexpr (SURROGATE == 1) {
    return std::fabs(d) < width / 2 ? inverse : A(0);
  } else if constexpr (SURROGATE == 2) {
    const A y = A(M_PI) * inverse * d;
    return inverse / (1 + y * y);
  } else {
    const A s = 1 / (1 + exponential(-d * inverse));
    return s * (1 - s) * inverse;
  }
}

// Which parts a current has, fixed when the loops are compiled.
enum Shortcut { kNone, kPlain, kNormed };  // what is added to norm(x) or x
template <bool kNorm, Shortcut kShortcut, bool kRepeat>
struct Form {
  static constexpr bool norm = kNorm, repeat = kRepeat;
  static constexpr Shortcut shortcut = kShortcut;
  static constexpr bool sums = kNorm || kShortcut == kNormed;
};

template <class F>  // f(Form) for the form that the arguments have
void dispatch(const Args& a, F f) {
  const bool norm = a.x.mean, r = a.r.x, r_norm = a.r.mean;
  if (a.repeat)
    norm ? f(Form<true, kNone, true>()) : f(Form<false, kNone, true>());
  else if (!r)
    norm ? f(Form<true, kNone, false>()) : f(Form<false, kNone, false>());
  else if (r_norm)
    norm ? f(Form<true, kNormed, false>()) : f(Form<false, kNormed, false>());
  else
    norm ? f(Form<true, kPlain, false>()) : f(Form<false, kPlain, false>());
}

// One segment: where its data start, and the values of its channels. By value, so that all of it is in registers.
struct Segment {
  int64_t step, size;
  A decay, gain, threshold, width, inverse;
  const S *__restrict x, *__restrict r, *__restrict grad;
  S* __restrict out;
  const A *__restrict scale, *__restrict shift, *__restrict r_scale, *__restrict r_shift;
  const A *__restrict mean, *__restrict r_mean;
  A *__restrict sum, *__restrict sum_x, *__restrict sum_r;

  explicit Segment(const Args& a)
      : step(a.step), decay(A(a.decay)), gain(A(a.gain)), threshold(A(a.threshold)), width(A(a.width)),
        inverse(1 / width) {}
};

template <class F>
INLINE A current(const Segment& p, int64_t l, A x, A r) {
  A i = F::norm ? x * p.scale[l] + p.shift[l] : x;
  if (F::shortcut == kPlain) i = i + r;
  if (F::shortcut == kNormed) i = i + (r * p.r_scale[l] + p.r_shift[l]);
  return i;
}

INLINE A charge(const Segment& p, A v, A i) { return v * p.decay + (GAIN ? i * p.gain : i); }

INLINE A reset(A u, A s, A threshold) { return SOFT ? u - threshold * s : u * (1 - s); }

// Neuron l from step t on; v is its membrane after the step before.
template <class F, int t>
INLINE void fire(const Segment& p, int64_t l, A v) {
  if constexpr (t < kSteps) {
    const int64_t at = F::repeat ? l : t * p.step + l;
    const A i = current<F>(p, l, load(p.x[at]), F::shortcut != kNone ? load(p.r[at]) : A(0));
    const A u = charge(p, v, i);
    const A s = u - p.threshold >= 0 ? A(1) : A(0);
    store(p.out[t * p.step + l], s);
    fire<F, t + 1>(p, l, reset(u, s, p.threshold));
  }
}

struct Totals {
  A g = 0, x = 0, r = 0, decay = 0, gain = 0;
};

// Down through time to recompute the membranes, back up with the gradients: returns that of v.
template <class F, int t>
INLINE A back(const Segment& p, int64_t l, A v, Totals& total) {
  if constexpr (t < kSteps) {
    const int64_t at = F::repeat ? l : t * p.step + l;
    const A x = load(p.x[at]), r = F::shortcut != kNone ? load(p.r[at]) : A(0);
    const A i = current<F>(p, l, x, r);
    const A u = charge(p, v, i);
    const A s = u - p.threshold >= 0 ? A(1) : A(0);
    const A carry = back<F, t + 1>(p, l, reset(u, s, p.threshold), total);

    // After the last step nobody reads v: its zero gradient must not meet an infinite u.
    constexpr bool last = t + 1 == kSteps;
    A by_spike = load(p.grad[t * p.step + l]);
    if (!last && !DETACH) by_spike = by_spike - carry * (SOFT ? p.threshold : u);
    A g = by_spike * surrogate(u - p.threshold, p.width, p.inverse);
    if (!last) g = g + (SOFT ? carry : carry * (1 - s));
    const A d = GAIN ? g * p.gain : g;
    if (!F::repeat) store(p.out[at], d);
    total.g += d;
    if (F::norm && !F::repeat) total.x += d * (x - p.mean[l]);
    if (F::shortcut == kNormed) total.r += d * (r - p.r_mean[l]);
    if (LEAK && t > 0) total.decay += g * v;  // v is 0 before the first step, and g may be infinite
    if (LEAK) total.gain += g * i;
    return g * p.decay;
  }
  return 0;
}

template <class F>
void fire_segment(const Segment p) {
#pragma omp simd
  for (int64_t l = 0; l < p.size; ++l) fire<F, 0>(p, l, A(0));
}

template <class F>
void back_segment(const Segment p, double* leak) {
  A decay = 0, gain = 0;
#pragma omp simd reduction(+ : decay, gain)
  for (int64_t l = 0; l < p.size; ++l) {
    Totals total;
    back<F, 0>(p, l, A(0), total);
    if (F::repeat) store(p.out[l], total.g);
    if (F::sums) p.sum[l] += total.g;
    if (F::norm) p.sum_x[l] += F::repeat ? total.g * (load(p.x[l]) - p.mean[l]) : total.x;
    if (F::shortcut == kNormed) p.sum_r[l] += total.r;
    if (LEAK) decay += total.decay, gain += total.gain;
  }
  leak[0] += decay, leak[1] += gain;
}

// Both branches as one thread reads them, segment by segment.
struct Reader {
  const Cut& cut;
  const Part &x, &r;
  Tiled scale, shift, mean, r_scale, r_shift, r_mean;
  Reader(const Cut& cut, const Part& x, const Part& r)
      : cut(cut), x(x), r(r), scale(cut, x.scale), shift(cut, x.shift), mean(cut, x.mean), r_scale(cut, r.scale), r_shift(cut, r.shift),
        r_mean(cut, r.mean) {}
  template <class F>
  void open(Segment& p, int64_t segment) {
    p.size = cut.size(segment);
    p.x = x.x + cut.start(segment);
    if (F::shortcut != kNone) p.r = r.x + cut.start(segment);
    if (F::norm) p.scale = scale.at(segment), p.shift = shift.at(segment), p.mean = mean.at(segment);
    if (F::shortcut == kNormed)
      p.r_scale = r_scale.at(segment), p.r_shift = r_shift.at(segment), p.r_mean = r_mean.at(segment);
  }
};

template <class F>
void forward(const Args& a) {
  const Cut cut(a);
  const Part x(a, a.x), r(a, a.r);
  parallel(a, cut.count, [&](int, int64_t begin, int64_t end) {
    Reader reader(cut, x, r);
    Segment p(a);
    for (int64_t segment = begin; segment < end; ++segment) {
      reader.open<F>(p, segment);
      p.out = static_cast<S*>(a.spikes) + cut.start(segment);
      fire_segment<F>(p);
    }
  });
}

// dx = a g + b x + c at every step of one segment; out may be g.
template <int kCount>
void combine(const S* g, const S* __restrict x, int64_t step, const A* __restrict by_g, const A* __restrict by_x,
             const A* __restrict constant, int64_t size, S* out) {
#pragma omp simd
  for (int64_t l = 0; l < size; ++l) {
    const A a = by_g[l], b = by_x[l], c = constant[l];
#pragma GCC unroll 16
    for (int t = 0; t < kCount; ++t) {
      const int64_t at = t * step + l;
      store(out[at], a * load(g[at]) + (b * load(x[at]) + c));
    }
  }
}

// The second pass, with the sums known: the gradient g of the current through the normalisation of a branch,
// dx = scale (g - mean g - (x - mean x) inv^2 mean(g (x - mean x))); without the means where statistics are frozen.
void through_norm(const Args& a, const Branch& b, const Part& part, const Sums& sum, const Sums& product) {
  const Cut cut(a);
  const double n = double(a.step) / a.channels * (a.repeat ? 1 : kSteps);
  std::vector<A> by_x(a.channels), constant(a.channels);
  for (int64_t c = 0; c < a.channels; ++c) {
    const double sum_x = product.of(c), sum_1 = sum.of(c), inv = part.inv[c];
    static_cast<A*>(b.grad_weight)[c] = A(sum_x * inv);
    static_cast<A*>(b.grad_bias)[c] = A(sum_1);
    if (!b.batch_stats) continue;
    const double slope = -part.scale[c] * inv * inv * sum_x / n;
    by_x[c] = A(slope);
    constant[c] = A(-part.scale[c] * sum_1 / n - slope * part.mean[c]);
  }
  parallel(a, cut.count, [&](int, int64_t begin, int64_t end) {
    Tiled scales(cut, part.scale), slopes(cut, by_x), constants(cut, constant);
    for (int64_t i = begin; i < end; ++i) {
      const auto map = a.repeat ? combine<1> : combine<kSteps>;
      const int64_t at = cut.start(i);
      map(static_cast<const S*>(a.current) + at, part.x + at, a.step, scales.at(i), slopes.at(i), constants.at(i),
          cut.size(i), static_cast<S*>(b.grad) + at);
    }
  });
}

template <class F>
void backward(const Args& a) {
  const Cut cut(a);
  const Part x(a, a.x), r(a, a.r);
  Sums sum(cut, a.threads), sum_x(cut, a.threads), sum_r(cut, a.threads);
  std::vector<double> leak(2 * a.threads);
  parallel(a, cut.count, [&](int thread, int64_t begin, int64_t end) {
    Reader reader(cut, x, r);
    Sums::Local sums(sum, thread), sums_x(sum_x, thread), sums_r(sum_r, thread);
    Segment p(a);
    for (int64_t segment = begin; segment < end; ++segment) {
      reader.open<F>(p, segment);
      p.grad = static_cast<const S*>(a.grad) + cut.start(segment);
      p.out = static_cast<S*>(a.current) + cut.start(segment);
      if (F::sums) p.sum = sums.at(segment);
      if (F::norm) p.sum_x = sums_x.at(segment);
      if (F::shortcut == kNormed) p.sum_r = sums_r.at(segment);
      back_segment<F>(p, &leak[2 * thread]);
    }
  });
  if (LEAK)
    for (int i = 0; i < a.threads; ++i) a.leak[0] += leak[2 * i], a.leak[1] += leak[2 * i + 1];
  if (r.norm) through_norm(a, a.r, r, sum, sum_r);
  if (x.norm) through_norm(a, a.x, x, sum, sum_x);  // last: its gradient may lie where the current's lies
}

template <class X>
void sum_steps(const X* x, int64_t stride, const double* weight, S* out, int64_t size, int32_t threads) {
#pragma omp parallel for simd num_threads(threads)
  for (int64_t l = 0; l < size; ++l) {
    A sum = 0;
#pragma GCC unroll 16
    for (int t = 0; t < kSteps; ++t) sum += A(weight[t]) * A(load(x[t * stride + l]));
    store(out[l], sum);
  }
}

}  // namespace

extern "C" {
void lif_forward(const Args* a) {
  for (const auto* b : {&a->x, &a->r})
    if (b->mean && b->batch_stats) statistics(*a, *b);
  dispatch(*a, [&](auto form) { forward<decltype(form)>(*a); });
}
void lif_backward(const Args* a) {
  dispatch(*a, [&](auto form) { backward<decltype(form)>(*a); });
}
// sum_t weight[t] x[t] over spikes [T, size] in one pass: what gradient scaling takes of them. They are SCALAR, or
// int8_t where `bytes` is set; from one step to the next it is `stride` elements.
void weighted_steps(const void* x, int32_t bytes, int64_t stride, const double* weight, void* out, int64_t size,
                    int32_t threads) {
  if (bytes)
    sum_steps(static_cast<const int8_t*>(x), stride, weight, static_cast<S*>(out), size, threads);
  else
    sum_steps(static_cast<const S*>(x), stride, weight, static_cast<S*>(out), size, threads);
}
}
