// Scan, radix sort, and the state of the device. On the GPU the first two are CUB's, compiled once in prims.cu because
// its headers take longer to compile than all kernels together; in emulation plain loops, in tools/emulation/prims.cpp.
#pragma once
#include "context.h"

namespace splatrender::cuda {

// out[i] = Σ_{j<i} in[j]
Status exclusive_sum(const int32_t* in, int64_t* out, int64_t n, Context&);
// Stable, by the lowest `bits` bits of the keys. The inputs are left as they are.
template <class K, class V>
Status sort_pairs(const K* keys, K* sorted_keys, const V* values, V* sorted_values, int64_t n, int bits, Context&);
// Instances: <uint32_t, int32_t>, <uint64_t, int32_t> (depths) and <uint32_t, uint64_t> (tiles).

// Waits for the device and returns the error that it is left in, if any: an illegal access or a failed assertion of an
// earlier kernel, of whatever library, is returned by every later call.
Status sticky_error();

}  // namespace splatrender::cuda
