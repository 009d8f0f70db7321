#include "buffer.h"

#include <cstdlib>
#include <new>

namespace deal {

// Zeroed memory comes from calloc, which does not touch the pages of a large block.
Memory allocate(int64_t count, int64_t size, Fill fill, int64_t alignment) {
  if (count == 0) return {};
  if (count < 0 || count > (INT64_MAX - alignment) / size) out_of_memory();
  const size_t bytes = size_t(count * size + alignment - 1);
  void* const base = fill == Fill::zeros ? std::calloc(bytes, 1) : std::malloc(bytes);
  if (!base) out_of_memory();
  const uintptr_t mask = uintptr_t(alignment) - 1;
  return {base, reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(base) + mask) & ~mask)};
}

void release(void* base) { std::free(base); }

void out_of_memory() { throw std::bad_alloc(); }

namespace {

constexpr int64_t kPage = 4096;

struct Workspace {
  Memory memory{};
  int64_t floats = 0;
  ~Workspace() { release(memory.base); }
};
thread_local Workspace owned;

}  // namespace

float* workspace(int64_t floats) {
  if (floats > owned.floats) {
    release(owned.memory.base);
    owned.memory = {};
    owned.floats = 0;
    owned.memory = allocate(floats, sizeof(float), Fill::none, kPage);
    owned.floats = floats;
  }
  return static_cast<float*>(owned.memory.data);
}

}  // namespace deal
