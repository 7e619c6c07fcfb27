// What event.py needs beside event.cpp, with OpenMP, whose threads are those of PyTorch.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

extern "C" {
// Numbers in bytes, if they are whole and from 0 to `most`: returns the largest, or -1; `set` is how many are not 0.
int event_bytes(const float* x, int64_t size, int most, uint8_t* bytes, int64_t* set, int threads) {
  constexpr int64_t kChunk = 1 << 12;
  const int64_t chunks = (size + kChunk - 1) / kChunk;
  int largest = 0;
  int64_t count = 0;
  std::atomic<bool> other{false};
#pragma omp parallel for num_threads(threads) reduction(max : largest) reduction(+ : count)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (other.load(std::memory_order_relaxed)) continue;
    const int64_t begin = chunk * kChunk, end = std::min(size, begin + kChunk);
    int bad = 0, high = 0, here = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float value = x[i];
      const int whole = static_cast<int>(value >= 0 && value <= most ? value : 0);  // NaN is 0, and not itself
      bad |= static_cast<float>(whole) != value;
      high = std::max(high, whole);
      here += whole != 0;
      bytes[i] = static_cast<uint8_t>(whole);
    }
    if (bad) other = true;
    largest = std::max(largest, high), count += here;
  }
  *set = count;
  return other ? -1 : largest;
}

// What EventCall asks of `parallel_for`; `threads` is a number.
void event_threads(void* threads, void (*task)(void*, size_t), void* data, size_t count) {
#pragma omp parallel for num_threads(static_cast<int>(reinterpret_cast<intptr_t>(threads))) schedule(dynamic)
  for (size_t i = 0; i < count; ++i) task(data, i);
}
}
