// CUB behind the small interface of prims.h.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "prims.h"
#include "runtime.h"

namespace splatrender::cuda {

// CUB takes 32-bit offsets for 32-bit counts, and there are never more than 2^31 items.
Status exclusive_sum(const int32_t* in, int64_t* out, int64_t n, Context& context) {
  const cudaStream_t stream = static_cast<cudaStream_t>(context.stream);
  size_t bytes = 0;
  const auto call = [&](void* memory) {
    return status_of(
        "cub::DeviceScan",
        cub::DeviceScan::ExclusiveScan(memory, bytes, in, out, ::cuda::std::plus<>{}, int64_t(0), uint32_t(n), stream));
  };
  SR_TRY(call(nullptr));
  return call(context.scratch<char>(int64_t(bytes)));
}

template <class K, class V>
Status sort_pairs(const K* keys, K* sorted_keys, const V* values, V* sorted_values, int64_t n, int bits,
                  Context& context) {
  const cudaStream_t stream = static_cast<cudaStream_t>(context.stream);
  size_t bytes = 0;
  const auto call = [&](void* memory) {
    return status_of("cub::DeviceRadixSort",
                     cub::DeviceRadixSort::SortPairs(
                         memory, bytes, keys, sorted_keys, values, sorted_values, uint32_t(n), 0, bits, stream));
  };
  SR_TRY(call(nullptr));
  return call(context.scratch<char>(int64_t(bytes)));
}
template Status sort_pairs(const uint32_t*, uint32_t*, const int32_t*, int32_t*, int64_t, int, Context&);
template Status sort_pairs(const uint64_t*, uint64_t*, const int32_t*, int32_t*, int64_t, int, Context&);
template Status sort_pairs(const uint32_t*, uint32_t*, const uint64_t*, uint64_t*, int64_t, int, Context&);

Status sticky_error() {
  const Status status = status_of("cudaDeviceSynchronize", cudaDeviceSynchronize());
  cudaGetLastError();  // CUB reads the last error: one that is not sticky is reported once
  return status;
}

}  // namespace splatrender::cuda
