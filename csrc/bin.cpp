// Host side of binning: checks, allocation, dispatch. The one stage whose output size depends on the data.
#include "executor.h"
#include "ops.h"

namespace splatrender {

std::tuple<Tensor, Tensor, Tensor, Tensor> bin_op(Tensor means2d, Tensor conics, Tensor depths, Tensor peaks,
                                                  Tensor extents, int64_t width, int64_t height) {
  Checker check("bin");
  const ScalarType type = float_type(means2d, "bin", "means2d");
  check_rows(check, "means2d", means2d);
  const Tensor m = check(means2d, "means2d", type, {"C", "N", 2}), q = check(conics, "conics", type, {"C", "N", 3}),
               z = check(depths, "depths", type, {"C", "N"}), p = check(peaks, "peaks", type, {"C", "N"}),
               e = check(extents, "extents", type, {"C", "N", 2});
  check_image(check, width, height);
  const int64_t N = check.size("N"), C = check.size("C");
  check.require(C <= kMostRows / tile_count(width, height), "width, height", "fewer than 2^31 tiles in all cameras",
                std::to_string(C) + " images of " + std::to_string(width) + " x " + std::to_string(height));
  Tensor tile_offsets = make(means2d, {C * tile_count(width, height) + 1}, ScalarType::Int);
  Tensor splat_offsets = make(means2d, {C * N + 1}, ScalarType::Int);
  Tensor splat_ids, slots;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    BinArgs<T> a{
        N,
        C,
        int(width),
        int(height),
        cdata<T>(m),
        cdata<T>(q),
        cdata<T>(z),
        cdata<T>(p),
        cdata<T>(e),
        data<int32_t>(tile_offsets),
        data<int32_t>(splat_offsets),
        nullptr,
        nullptr};
    const auto make_lists = [&](int64_t pairs) {
      check.require(pairs < (int64_t(1) << 31), "splats",
                    "fewer than 2^31 splat-tile pairs (smaller images, fewer cameras at once or smaller splats)",
                    std::to_string(pairs));
      splat_ids = make(means2d, {pairs}, ScalarType::Int);
      slots = make(means2d, {pairs}, ScalarType::Int);
      a.splat_ids = data<int32_t>(splat_ids), a.slots = data<int32_t>(slots);
    };
    run(
        "bin", means2d,
        [&](auto& context) {
          cuda::BinState state;
          SR_TRY(cuda::bin_count(a, context, state));
          make_lists(state.pairs);
          return cuda::bin_fill(a, context, state);
        },
        [&](auto& cpu) {
          static thread_local BinScratch scratch;  // kept between calls: training bins at every step
          make_lists(cpu.template stages<T>().bin_count(a, scratch));
          cpu.template stages<T>().bin_fill(a, scratch);
        });
  });
  return {tile_offsets, splat_ids, slots, splat_offsets};
}

}  // namespace splatrender
