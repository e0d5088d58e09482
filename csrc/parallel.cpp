// torch's own threads and our scratch memory, behind the small interface of cpu/parallel.h.
#include "cpu/parallel.h"

#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <new>

namespace splatrender {

int worker_count() { return int(torch::stable::get_num_threads()); }

void run_workers(int workers, void (*body)(void*, int), void* context) {
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(context, int(i));
  });
}

Scratch::~Scratch() { std::free(data_); }

void* Scratch::reserve(size_t bytes) {
  if (bytes > size_) {
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    const size_t size = (bytes + bytes / 8 + 63) / 64 * 64;  // a little more, so that slow growth stays cheap
    data_ = std::aligned_alloc(64, size);
    if (!data_) throw std::bad_alloc();
    size_ = size;
  }
  return data_;
}

}  // namespace splatrender
