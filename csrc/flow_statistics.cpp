// Host side of the flow statistics: checks, allocation, dispatch.
#include "math/flow_statistics.h"

#include "lists.h"
#include "ops.h"

namespace splatrender {

std::tuple<Tensor, Tensor, Tensor> flow_statistics_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor photos, OptionalTensor masks, Tensor levels,
    int64_t probes, int64_t width, int64_t height, int64_t response) {
  Checker check("flow_statistics");
  const ScalarType type = float_type(means2d, "flow_statistics", "means2d");
  const ListInputs in = checked_lists(
      check, type, {means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets},
      width, height, response);
  const int64_t C = check.size("C"), N = check.size("N"), tiles = tile_count(width, height);
  check.require(check.size("D") == 3, "emission", "3 channels, as photos have", std::to_string(check.size("D")));
  const bool bytes = photos.scalar_type() == ScalarType::Byte;
  const Tensor photo = check(photos, "photos", bytes ? ScalarType::Byte : type, {"C", height, width, 3});
  OptionalTensor mask;
  if (masks) mask = check(*masks, "masks", ScalarType::Byte, {"C", height, width});
  const Tensor level = check(levels, "levels", type, {"K"});
  const int64_t K = check.size("K");
  check.require(K >= 1 && K <= kMassesMost, "levels", "1 to " + std::to_string(kMassesMost) + " numbers",
                std::to_string(K));
  check.require(probes >= 0 && probes <= N, "probes", "a number from 0 to " + std::to_string(N),
                std::to_string(probes));
  Tensor error = make(means2d, {C}, type), removal = make(means2d, {C, N - probes}, type),
         insertion = make(means2d, {C, probes, K, kQuadratic}, type),
         partial = make(means2d, {C * tiles}, ScalarType::Double);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    FlowArgs<T> a{};
    a.list = list_arguments<T>(check, in, width, height, response);
    a.probes = probes, a.masses = int(K), a.levels = cdata<T>(level);
    if (bytes)
      a.photo_bytes = cdata<uint8_t>(photo);
    else
      a.photos = cdata<T>(photo);
    a.masks = mask ? cdata<uint8_t>(*mask) : nullptr;
    a.error = data<T>(error), a.removal = data<T>(removal), a.insertion = data<T>(insertion);
    a.partial = data<double>(partial);
    run(
        "flow_statistics", means2d, [&](auto& context) { return cuda::flow_statistics(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().flow_statistics(a); });
  });
  return {error, removal, insertion};
}

}  // namespace splatrender
