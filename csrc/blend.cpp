// Host side of blending: checks, allocation, dispatch.
#include "executor.h"
#include "ops.h"

namespace splatrender {
namespace {

struct Inputs {
  Tensor means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets;
};

void check_range(const Checker& check, const Tensor& ids, const char* name, int64_t count, int64_t size) {
  const int32_t* p = cdata<int32_t>(ids);
  uint32_t most = 0;  // negative numbers become large ones
  for (int64_t i = 0; i < count; ++i) most = uint32_t(p[i]) > most ? uint32_t(p[i]) : most;
  check.require(count == 0 || int64_t(most) < size, name, "numbers from 0 to " + std::to_string(size - 1),
                std::to_string(int32_t(most)));
}

Inputs checked(Checker& check, ScalarType type, const Inputs& t, int64_t width, int64_t height, int64_t response) {
  Inputs in{check(t.means2d, "means2d", type, {"C", "N", 2}),
            check(t.conics, "conics", type, {"C", "N", 3}),
            check(t.peaks, "peaks", type, {"C", "N"}),
            check(t.emission, "emission", type, {"C", "N", "D"}),
            check(t.backgrounds, "backgrounds", type, {"C", "D"}),
            t.tile_offsets,
            check(t.splat_ids, "splat_ids", ScalarType::Int, {"P"}),
            check(t.slots, "slots", ScalarType::Int, {"P"}),
            t.splat_offsets};
  check_image(check, width, height);
  check_response(check, response);
  check.require(check.size("D") >= 1, "emission", "at least one channel", "none");
  const int64_t C = check.size("C"), N = check.size("N"), P = check.size("P");
  in.tile_offsets = check(t.tile_offsets, "tile_offsets", ScalarType::Int, {C * tile_count(width, height) + 1});
  in.splat_offsets = check(t.splat_offsets, "splat_offsets", ScalarType::Int, {C * N + 1});
  // The lists must be those that bin made for these sizes: the CPU kernels follow them without looking. Those of CUDA
  // do look, because reading here would wait for the device.
  check.require(P == 0 || C * N > 0, "splat_ids", "no pairs where there are no splats", std::to_string(P) + " pairs");
  if (runs_on_cuda(t.means2d)) return in;
  const int32_t* tiles = cdata<int32_t>(in.tile_offsets);
  const int32_t* splats = cdata<int32_t>(in.splat_offsets);
  const int64_t n_tiles = C * tile_count(width, height);
  check.require(tiles[n_tiles] == P && splats[C * N] == P, "tile_offsets, splat_offsets",
                "offsets that end at the number of pairs " + std::to_string(P),
                std::to_string(tiles[n_tiles]) + " and " + std::to_string(splats[C * N]));
  check_range(check, in.splat_ids, "splat_ids", P, C * N);
  check_range(check, in.slots, "slots", P, P);
  return in;
}

template <class T>
BlendArgs<T> arguments(const Checker& check, const Inputs& in, int64_t width, int64_t height, int64_t response) {
  BlendArgs<T> a{};
  a.N = check.size("N"), a.C = check.size("C"), a.D = check.size("D"), a.P = check.size("P");
  a.width = int(width), a.height = int(height), a.response = int(response);
  a.means2d = cdata<T>(in.means2d), a.conics = cdata<T>(in.conics), a.peaks = cdata<T>(in.peaks);
  a.emission = cdata<T>(in.emission), a.backgrounds = cdata<T>(in.backgrounds);
  a.tile_offsets = cdata<int32_t>(in.tile_offsets), a.splat_ids = cdata<int32_t>(in.splat_ids);
  a.slots = cdata<int32_t>(in.slots), a.splat_offsets = cdata<int32_t>(in.splat_offsets);
  return a;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blend_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, int64_t width, int64_t height, int64_t response,
    bool with_visibility) {
  Checker check("blend");
  const ScalarType type = float_type(means2d, "blend", "means2d");
  const Inputs in = checked(
      check, type, {means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets},
      width, height, response);
  const int64_t C = check.size("C");
  Tensor radiance = make(means2d, {C, height, width, check.size("D")}, type),
         transmittance = make(means2d, {C, height, width}, type),
         visibility = make(means2d, {with_visibility ? C : 0, check.size("N")}, type),
         hits = make(means2d, {check.size("P")}, ScalarType::Short),
         last = make(means2d, {C, height, width}, ScalarType::Int);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = arguments<T>(check, in, width, height, response);
    a.radiance = data<T>(radiance), a.transmittance = data<T>(transmittance), a.hits = data<int16_t>(hits);
    a.last = data<int32_t>(last);
    a.visibility = with_visibility ? data<T>(visibility) : nullptr;
    run(
        "blend", means2d, [&](auto& context) { return cuda::blend(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().blend(a); });
  });
  return {radiance, transmittance, visibility, hits, last};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> blend_backward_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor transmittance, Tensor hits, Tensor last,
    Tensor grad_radiance, Tensor grad_transmittance, int64_t width, int64_t height, int64_t response) {
  Checker check("blend_backward");
  const ScalarType type = float_type(means2d, "blend_backward", "means2d");
  const Inputs in = checked(
      check, type, {means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets},
      width, height, response);
  const Tensor T_out = check(transmittance, "transmittance", type, {"C", height, width});
  const Tensor hit = check(hits, "hits", ScalarType::Short, {"P"});
  const Tensor reached = check(last, "last", ScalarType::Int, {"C", height, width});
  const Tensor go = check(grad_radiance, "grad_radiance", type, {"C", height, width, "D"});
  const Tensor gT = check(grad_transmittance, "grad_transmittance", type, {"C", height, width});
  const int64_t C = check.size("C"), N = check.size("N");
  Tensor g_means2d = make(means2d, {C, N, 2}, type), g_conics = make(means2d, {C, N, 3}, type),
         g_peaks = make(means2d, {C, N}, type), g_emission = make(means2d, {C, N, check.size("D")}, type);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = arguments<T>(check, in, width, height, response);
    a.transmittance = const_cast<T*>(cdata<T>(T_out));  // these three are only read in backward
    a.hits = const_cast<int16_t*>(cdata<int16_t>(hit));
    a.last = const_cast<int32_t*>(cdata<int32_t>(reached));
    const BlendGrads<T> g{cdata<T>(go),      cdata<T>(gT),     data<T>(g_means2d),
                          data<T>(g_conics), data<T>(g_peaks), data<T>(g_emission)};
    run(
        "blend_backward", means2d, [&](auto& context) { return cuda::blend_backward(a, g, context); },
        [&](auto& cpu) { cpu.template stages<T>().blend_backward(a, g); });
  });
  return {g_means2d, g_conics, g_peaks, g_emission};
}

}  // namespace splatrender
