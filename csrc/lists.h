// Inputs of the stages that walk the tile lists: checks and arguments that blend and flow_statistics share.
#pragma once
#include "executor.h"

namespace splatrender {

struct ListInputs {
  Tensor means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots, splat_offsets;
};

inline void check_range(const Checker& check, const Tensor& ids, const char* name, int64_t count, int64_t size) {
  const int32_t* p = cdata<int32_t>(ids);
  uint32_t most = 0;  // negative numbers become large ones
  for (int64_t i = 0; i < count; ++i) most = uint32_t(p[i]) > most ? uint32_t(p[i]) : most;
  check.require(count == 0 || int64_t(most) < size, name, "numbers from 0 to " + std::to_string(size - 1),
                std::to_string(int32_t(most)));
}

inline ListInputs checked_lists(Checker& check, ScalarType type, const ListInputs& t, int64_t width, int64_t height,
                                int64_t response) {
  check_rows(check, "means2d", t.means2d);
  ListInputs in{
      check(t.means2d, "means2d", type, {"C", "N", 2}),
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
  // The lists must be those that bin made for these sizes: the CPU kernels follow them unchecked. Those of CUDA
  // check each entry, because reading here would wait for the device.
  check.require(P == 0 || C * N > 0, "splat_ids", "no pairs where there are no splats", std::to_string(P) + " pairs");
  if (runs_on_cuda(t.means2d)) return in;
  const int32_t* tiles = cdata<int32_t>(in.tile_offsets);
  const int32_t* splats = cdata<int32_t>(in.splat_offsets);
  const int64_t n_tiles = C * tile_count(width, height);
  check.require(tiles[n_tiles] == P && splats[C * N] == P, "tile_offsets, splat_offsets",
                "offsets that end at the number of pairs " + std::to_string(P),
                std::to_string(tiles[n_tiles]) + " and " + std::to_string(splats[C * N]));
  // In float32 the kernels hold places in a list as float.
  constexpr int64_t kMostFloat = 1 << 24;
  for (int64_t k = 0; type == ScalarType::Float && P > kMostFloat && k < n_tiles; ++k)
    check.require(int64_t(tiles[k + 1]) - tiles[k] <= kMostFloat, "tile_offsets",
                  "at most 2^24 splats in a tile (float64 takes more)", std::to_string(tiles[k + 1] - tiles[k]));
  check_range(check, in.splat_ids, "splat_ids", P, C * N);
  check_range(check, in.slots, "slots", P, P);
  return in;
}

template <class T>
BlendArgs<T> list_arguments(const Checker& check, const ListInputs& in, int64_t width, int64_t height,
                            int64_t response) {
  BlendArgs<T> a{};
  a.N = check.size("N"), a.C = check.size("C"), a.D = check.size("D"), a.P = check.size("P");
  a.width = int(width), a.height = int(height), a.response = int(response);
  a.means2d = cdata<T>(in.means2d), a.conics = cdata<T>(in.conics), a.peaks = cdata<T>(in.peaks);
  a.emission = cdata<T>(in.emission), a.backgrounds = cdata<T>(in.backgrounds);
  a.tile_offsets = cdata<int32_t>(in.tile_offsets), a.splat_ids = cdata<int32_t>(in.splat_ids);
  a.slots = cdata<int32_t>(in.slots), a.splat_offsets = cdata<int32_t>(in.splat_offsets);
  return a;
}

}  // namespace splatrender
