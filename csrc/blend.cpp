// Host side of blending: checks, allocation, dispatch.
#include "lists.h"
#include "ops.h"

namespace splatrender {

static void check_absgrad(const Checker& check) {
  const int64_t D = check.size("D");
  check.require(D <= kAbsgradChannels, "emission", std::to_string(kAbsgradChannels) + " channels at most with absgrad",
                std::to_string(D));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blend_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, int64_t width, int64_t height, int64_t response,
    bool with_visibility, OptionalTensor means2d_abs) {
  Checker check("blend");
  const ScalarType type = float_type(means2d, "blend", "means2d");
  const ListInputs in = checked_lists(
      check, type, {means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets},
      width, height, response);
  if (means2d_abs) {  // zeros; the gradient of their own is the sum of absolute values that backward makes
    check_absgrad(check);
    check(*means2d_abs, "means2d_abs", type, {"C", "N", 2});
  }
  const int64_t C = check.size("C");
  Tensor radiance = make(means2d, {C, height, width, check.size("D")}, type),
         transmittance = make(means2d, {C, height, width}, type),
         visibility = make(means2d, {with_visibility ? C : 0, check.size("N")}, type),
         hits = make(means2d, {check.size("P")}, ScalarType::Short),
         last = make(means2d, {C, height, width}, ScalarType::Int);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = list_arguments<T>(check, in, width, height, response);
    a.radiance = data<T>(radiance), a.transmittance = data<T>(transmittance), a.hits = data<int16_t>(hits);
    a.last = data<int32_t>(last);
    a.visibility = with_visibility ? data<T>(visibility) : nullptr;
    run(
        "blend", means2d, [&](auto& context) { return cuda::blend(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().blend(a); });
  });
  return {radiance, transmittance, visibility, hits, last};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blend_backward_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor transmittance, Tensor hits, Tensor last,
    Tensor grad_radiance, Tensor grad_transmittance, int64_t width, int64_t height, int64_t response,
    bool with_absgrad) {
  Checker check("blend_backward");
  const ScalarType type = float_type(means2d, "blend_backward", "means2d");
  const ListInputs in = checked_lists(
      check, type, {means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets},
      width, height, response);
  const Tensor T_out = check(transmittance, "transmittance", type, {"C", height, width});
  const Tensor hit = check(hits, "hits", ScalarType::Short, {"P"});
  const Tensor reached = check(last, "last", ScalarType::Int, {"C", height, width});
  const Tensor go = check(grad_radiance, "grad_radiance", type, {"C", height, width, "D"});
  const Tensor gT = check(grad_transmittance, "grad_transmittance", type, {"C", height, width});
  if (with_absgrad) check_absgrad(check);
  const int64_t C = check.size("C"), N = check.size("N");
  Tensor g_means2d = make(means2d, {C, N, 2}, type), g_conics = make(means2d, {C, N, 3}, type),
         g_peaks = make(means2d, {C, N}, type), g_emission = make(means2d, {C, N, check.size("D")}, type),
         absgrad = make(means2d, {with_absgrad ? C : 0, N, 2}, type);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = list_arguments<T>(check, in, width, height, response);
    a.transmittance = const_cast<T*>(cdata<T>(T_out));  // these three are only read in backward
    a.hits = const_cast<int16_t*>(cdata<int16_t>(hit));
    a.last = const_cast<int32_t*>(cdata<int32_t>(reached));
    BlendGrads<T> g{};
    g.radiance = cdata<T>(go), g.transmittance = cdata<T>(gT);
    g.means2d = data<T>(g_means2d), g.conics = data<T>(g_conics), g.peaks = data<T>(g_peaks);
    g.emission = data<T>(g_emission), g.absgrad = with_absgrad ? data<T>(absgrad) : nullptr;
    run(
        "blend_backward", means2d, [&](auto& context) { return cuda::blend_backward(a, g, context); },
        [&](auto& cpu) { cpu.template stages<T>().blend_backward(a, g); });
  });
  return {g_means2d, g_conics, g_peaks, g_emission, absgrad};
}

}  // namespace splatrender
