// Checked memory. All memory of the CPU kernels comes from here; where there is none left, std::bad_alloc is thrown.
#pragma once
#include "simd.h"

namespace deal {

// Compiled once: what kernels of several instruction sets share must not be inline.
struct Memory {
  void* base;  // what release() takes
  void* data;  // aligned
};
enum class Fill { none, zeros };
constexpr int64_t kCacheLine = 64;
Memory allocate(int64_t count, int64_t size, Fill fill, int64_t alignment);
void release(void* base);
[[noreturn]] void out_of_memory();

// Page-aligned memory of the calling thread. It is valid until the same thread asks again: then it is reused.
float* workspace(int64_t floats);

namespace DEAL_ISA {
namespace {

// An array that begins at a cache line.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t count, Fill fill) : memory_(allocate(count, sizeof(T), fill, kCacheLine)) {}
  Buffer(Buffer&& other) : memory_(other.memory_) { other.memory_ = {}; }
  Buffer& operator=(Buffer&& other) {
    const Memory mine = memory_;
    memory_ = other.memory_;
    other.memory_ = mine;
    return *this;
  }
  ~Buffer() {
    if (memory_.base) release(memory_.base);
  }

  T* get() const { return static_cast<T*>(memory_.data); }
  T& operator[](int64_t i) const { return get()[i]; }

 private:
  Memory memory_ = {};
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
