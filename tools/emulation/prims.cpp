// The emulated counterpart of prims.cu.
#include "../../csrc/cuda/prims.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace splatrender::cuda {

Status exclusive_sum(const int32_t* in, int64_t* out, int64_t n, Context&) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t next = sum + in[i];
    out[i] = sum;
    sum = next;
  }
  return {};
}

template <class K, class V>
Status sort_pairs(const K* keys, K* sorted_keys, const V* values, V* sorted_values, int64_t n, int bits, Context&) {
  const K low = bits >= int(8 * sizeof(K)) ? K(~K(0)) : K((K(1) << bits) - 1);
  std::vector<int64_t> order(size_t(n > 0 ? n : 0));
  std::iota(order.begin(), order.end(), int64_t(0));
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & low) < (keys[b] & low); });
  for (int64_t i = 0; i < n; ++i) {
    sorted_keys[i] = keys[order[size_t(i)]];
    sorted_values[i] = values[order[size_t(i)]];
  }
  return {};
}
template Status sort_pairs(const uint32_t*, uint32_t*, const int32_t*, int32_t*, int64_t, int, Context&);
template Status sort_pairs(const uint64_t*, uint64_t*, const int32_t*, int32_t*, int64_t, int, Context&);
template Status sort_pairs(const uint32_t*, uint32_t*, const uint64_t*, uint64_t*, int64_t, int, Context&);

Status sticky_error() { return {}; }

}  // namespace splatrender::cuda
