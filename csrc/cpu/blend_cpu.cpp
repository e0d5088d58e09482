// Blending front to back, forward and backward, a tile per task. See blend_tile.h for the layout.
//
// Backward walks the same way, front to back, so that transmittances are the very numbers of the forward pass and no
// division by 1-α accumulates: the light from behind a splat is the pixel's total minus what came before,
//   S̃_i = R - Σ_{j<=i} w_j f_j,   R = ⟨gradient, radiance⟩ + T_N ∂L/∂T_N  (background included in the radiance).
// Each (splat, tile) pair writes its sums to a slot of its own, and a splat's slots lie side by side: no atomics, and
// the same bits with any number of threads.
#include "blend_tile.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

constexpr double kLog2Cutoff = -7.994353436858858;  // log2(1/255)

template <class T>
struct BlendScratch {
  Scratch records, slots, order;
};
// One per calling thread: kept between calls, so that training does not ask the system for memory at every step.
template <class T>
BlendScratch<T>& blend_scratch() {
  static thread_local BlendScratch<T> s;
  return s;
}

// Channels: D > 0 known at compile time and held in the record; D = 0 any number, read from `emission`.
template <int D, class T>
SR_INLINE const T* colors_of(const BlendArgs<T>& a, const Record<T>& r, int64_t id) {
  return D > 0 ? r.color : a.emission + id * a.D;
}

template <int D, Response R, bool VISIBILITY, class T>
void forward_tile(const BlendArgs<T>& a, const Record<T>* records, int64_t tile, T* seen, T* state) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  const int64_t channels = D > 0 ? D : a.D;
  const TilePlace place = place_of(a, tile);
  const Lattice<T> lattice = make_lattice<T>();
  const int64_t begin = a.tile_offsets[tile], end = a.tile_offsets[tile + 1];

  T* Ts = state;                       // [256] transmittance, 0 outside the image
  T* Cs = state + kBlocks * kPixels;   // [channels, 256]
  for (int64_t i = 0; i < (1 + channels) * kBlocks * kPixels; ++i) state[i] = 0;
  uint32_t alive = 0;
  for_pixels(a, place, [&](int p, int64_t) { Ts[p] = 1, alive |= 1u << (p / kPixels); });

  const S cutoff{T(kLog2Cutoff)}, opaque{T(kTransmittanceMin)};
  BlockExpansion<T> block;
  for (int64_t k = begin; k < end; ++k) {
    if (k + 4 < end) __builtin_prefetch(records + a.splat_ids[k + 4]);
    const int64_t id = a.splat_ids[k];
    const Record<T>& r = records[id];
    const T* color = colors_of<D>(a, r, id);
    uint32_t hit = 0;
    S sum_w(T(0));
    uint32_t todo = alive ? expand(r, lattice, T(place.x0), T(place.y0), block) & alive : 0;
    if (todo) {
      S bracket[kPixels / L];
      for (int v = 0; v < kPixels / L; ++v) {
        const S lx = S::load(lattice.lx + v * L), ly = S::load(lattice.ly + v * L);
        bracket[v] = (S(r.xx) * lx + S(r.xy) * ly) * lx + (S(r.yy) * ly * ly + S(r.log2_peak));
      }
      while (todo) {
        const int b = __builtin_ctz(todo);
        todo &= todo - 1;
        bool lives = false;
        for (int v = 0; v < kPixels / L; ++v) {
          const int at = b * kPixels + v * L;
          const S lx = S::load(lattice.lx + v * L), ly = S::load(lattice.ly + v * L);
          const S e = (bracket[v] + S(block.e00[b])) + lx * S(block.e10[b]) + ly * S(block.e01[b]);
          const S Tr = S::load(Ts + at);
          const auto clear = Tr > opaque;
          const auto ok = clear & (e >= cutoff);
          lives |= any(clear);
          if (!any(ok)) continue;
          hit |= 1u << b;
          const S alpha = alpha_of<R>(power_of_two(e));
          const S w = mask_or_zero(ok, alpha * Tr);
          if constexpr (VISIBILITY) sum_w += w;
          (Tr - w).store(Ts + at);
          for (int64_t c = 0; c < channels; ++c) {
            T* C = Cs + c * kBlocks * kPixels + at;
            (S::load(C) + w * S(color[c])).store(C);
          }
        }
        if (!lives) alive &= ~(1u << b);
      }
    }
    a.hits[k] = int16_t(hit);
    if constexpr (VISIBILITY) seen[a.slots[k]] = hit ? horizontal_sum(sum_w) : T(0);
  }

  const T* background = a.backgrounds + place.camera * channels;
  for_pixels(a, place, [&](int p, int64_t offset) {
    const int64_t pixel = place.first_pixel + offset;
    a.transmittance[pixel] = Ts[p];
    for (int64_t c = 0; c < channels; ++c)
      a.radiance[pixel * channels + c] = Cs[c * kBlocks * kPixels + p] + Ts[p] * background[c];
  });
}

// Sums that a (splat, tile) pair collects: ∂L/∂ln a times 1, dx, dy, dx², dx dy, dy², then one per channel.
constexpr int kMoments = 6;

template <int D, Response R, class T>
void backward_tile(const BlendArgs<T>& a, const BlendGrads<T>& g, const Record<T>* records, int64_t tile, T* slots,
                   T* state) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  constexpr int64_t plane = kBlocks * kPixels;
  const int64_t channels = D > 0 ? D : a.D, stride = kMoments + channels;
  const TilePlace place = place_of(a, tile);
  const Lattice<T> lattice = make_lattice<T>();
  const int64_t begin = a.tile_offsets[tile], end = a.tile_offsets[tile + 1];
  if (begin == end) return;

  T* Ts = state;                   // [256] transmittance in front of the next splat
  T* behind = state + plane;       // [256] R minus what came before
  T* gs = state + 2 * plane;       // [channels, 256] gradient of the pixel
  T* sums = gs + channels * plane;  // [channels, L] sums over pixels, any-D path only
  for (int64_t i = 0; i < (2 + channels) * plane; ++i) state[i] = 0;
  for_pixels(a, place, [&](int p, int64_t offset) {
    const int64_t pixel = place.first_pixel + offset;
    Ts[p] = 1;
    T total = a.transmittance[pixel] * g.transmittance[pixel];
    for (int64_t c = 0; c < channels; ++c) {
      const T d = g.radiance[pixel * channels + c];
      gs[c * plane + p] = d;
      total += a.radiance[pixel * channels + c] * d;
    }
    behind[p] = total;
  });

  const S cutoff{T(kLog2Cutoff)}, opaque{T(kTransmittanceMin)}, zero(T(0));
  BlockExpansion<T> block;
  for (int64_t k = begin; k < end; ++k) {
    if (k + 4 < end) __builtin_prefetch(records + a.splat_ids[k + 4]);
    T* slot = slots + int64_t(a.slots[k]) * stride;
    const uint32_t hit = uint16_t(a.hits[k]);
    if (!hit) {
      for (int64_t c = 0; c < stride; ++c) slot[c] = 0;
      continue;
    }
    const int64_t id = a.splat_ids[k];
    const Record<T>& r = records[id];
    const T* color = colors_of<D>(a, r, id);
    expand(r, lattice, T(place.x0), T(place.y0), block);
    S total[kMoments], total_color[D > 0 ? D : 1];
    for (int m = 0; m < kMoments; ++m) total[m] = zero;
    if constexpr (D > 0)
      for (int c = 0; c < D; ++c) total_color[c] = zero;
    else
      for (int64_t c = 0; c < channels; ++c) zero.store(sums + c * L);

    for (int v = 0; v < kPixels / L; ++v) {
      const S lx = S::load(lattice.lx + v * L), ly = S::load(lattice.ly + v * L);
      const S bracket = (S(r.xx) * lx + S(r.xy) * ly) * lx + (S(r.yy) * ly * ly + S(r.log2_peak));
      // moments about the block's centre: A = Σ_blocks dE · (1, X, Y, X², XY, Y²), shifted by (lx, ly) at the end
      S A0 = zero, A1 = zero, A2 = zero, A3 = zero, A4 = zero, A5 = zero;
      for (uint32_t todo = hit; todo; todo &= todo - 1) {
        const int b = __builtin_ctz(todo), at = b * kPixels + v * L;
        const S e = (bracket + S(block.e00[b])) + lx * S(block.e10[b]) + ly * S(block.e01[b]);
        const S Tr = S::load(Ts + at);
        const auto ok = (Tr > opaque) & (e >= cutoff);
        if (kPixels != L && !any(ok)) continue;
        const S response = power_of_two(e), alpha = alpha_of<R>(response);
        const S w = mask_or_zero(ok, alpha * Tr);
        S f = zero;
        for (int64_t c = 0; c < channels; ++c) {
          const S gc = S::load(gs + c * plane + at);
          f += gc * S(color[c]);
          if constexpr (D > 0)
            total_color[c] += w * gc;
          else
            (S::load(sums + c * L) + w * gc).store(sums + c * L);
        }
        const S rest = S::load(behind + at) - w * f;
        rest.store(behind + at);
        (Tr - w).store(Ts + at);
        const S dE = mask_or_zero(ok, log_response_vjp<R>(response, alpha, Tr, f, rest));
        const S X(block.dx[b]), Y(block.dy[b]);
        const S dX = dE * X, dY = dE * Y;
        A0 += dE, A1 += dX, A2 += dY;
        A3 += dX * X, A4 += dX * Y, A5 += dY * Y;
      }
      total[0] += A0;
      total[1] += A1 + lx * A0;
      total[2] += A2 + ly * A0;
      total[3] += A3 + lx * (A1 + A1 + lx * A0);
      total[4] += A4 + lx * A2 + ly * (A1 + lx * A0);
      total[5] += A5 + ly * (A2 + A2 + ly * A0);
    }
    for (int m = 0; m < kMoments; ++m) slot[m] = horizontal_sum(total[m]);
    for (int64_t c = 0; c < channels; ++c)
      slot[kMoments + c] = horizontal_sum(D > 0 ? total_color[D > 0 ? c : 0] : S::load(sums + c * L));
  }
}

template <class T, class F>
void for_tiles(const BlendArgs<T>& a, int64_t state_size, const F& body) {
  const int64_t tiles = a.C * ((a.width + kTile - 1) / kTile) * ((a.height + kTile - 1) / kTile);
  const int32_t* order = tiles_by_weight(a, tiles, blend_scratch<T>().order);
  parallel_for(tiles, [&](int64_t i) {
    static thread_local Scratch memory;
    body(int64_t(order[i]), memory.template get<T>(state_size));
  });
}

template <int D, Response R, class T>
void blend_channels(const BlendArgs<T>& a) {
  BlendScratch<T>& scratch = blend_scratch<T>();
  const Record<T>* records = make_records(a, scratch.records);
  const int64_t state = (1 + a.D) * kBlocks * kPixels;
  if (!a.visibility) {
    for_tiles(a, state, [&](int64_t tile, T* s) { forward_tile<D, R, false>(a, records, tile, static_cast<T*>(nullptr), s); });
    return;
  }
  T* seen = scratch.slots.template get<T>(a.P + 1);
  for_tiles(a, state, [&](int64_t tile, T* s) { forward_tile<D, R, true>(a, records, tile, seen, s); });
  for (int64_t i = 0; i < a.C * a.N; ++i) {
    T sum = 0;
    for (int32_t s = a.splat_offsets[i]; s < a.splat_offsets[i + 1]; ++s) sum += seen[s];
    a.visibility[i] = sum;
  }
}

template <int D, Response R, class T>
void blend_backward_channels(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  BlendScratch<T>& scratch = blend_scratch<T>();
  const Record<T>* records = make_records(a, scratch.records);
  const int64_t stride = kMoments + a.D;
  T* slots = scratch.slots.template get<T>(a.P * stride + 1);
  const int64_t state = (2 + a.D) * kBlocks * kPixels + a.D * lanes_of<T>;
  for_tiles(a, state, [&](int64_t tile, T* s) { backward_tile<D, R>(a, g, records, tile, slots, s); });

  // a splat's pairs lie side by side: sum them, then go from ln a to the splat's numbers
  constexpr int64_t kChunk = 1024;
  const int64_t CN = a.C * a.N;
  parallel_for((CN + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * kChunk < CN ? (chunk + 1) * kChunk : CN;
    for (int64_t i = chunk * kChunk; i < end; ++i) {
      T m[kMoments] = {};
      T* color = g.emission + i * a.D;
      for (int64_t c = 0; c < a.D; ++c) color[c] = 0;
      const int32_t first = a.splat_offsets[i], last = a.splat_offsets[i + 1];
      for (int32_t s = first; s < last; ++s) {
        const T* slot = slots + int64_t(s) * stride;
        for (int k = 0; k < kMoments; ++k) m[k] += slot[k];
        for (int64_t c = 0; c < a.D; ++c) color[c] += slot[kMoments + c];
      }
      const T* q = a.conics + 3 * i;
      g.means2d[2 * i] = q[0] * m[1] + q[1] * m[2];
      g.means2d[2 * i + 1] = q[1] * m[1] + q[2] * m[2];
      g.conics[3 * i] = T(-0.5) * m[3];
      g.conics[3 * i + 1] = -m[4];
      g.conics[3 * i + 2] = T(-0.5) * m[5];
      g.peaks[i] = first < last ? m[0] / a.peaks[i] : T(0);
    }
  });
}

// ---- from run-time channels and response to the compiled variants ---------------------------------------------

template <Response R, class T>
void blend_response(const BlendArgs<T>& a) {
  if (a.D == 3) return blend_channels<3, R>(a);
  if (a.D == 4) return blend_channels<4, R>(a);
  blend_channels<0, R>(a);
}
template <class T>
void blend_loop(const BlendArgs<T>& a) {
  if (Response(a.response) == Response::gaussian) return blend_response<Response::gaussian>(a);
  blend_response<Response::beer_lambert>(a);
}
template <Response R, class T>
void blend_backward_response(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  if (a.D == 3) return blend_backward_channels<3, R>(a, g);
  if (a.D == 4) return blend_backward_channels<4, R>(a, g);
  blend_backward_channels<0, R>(a, g);
}
template <class T>
void blend_backward_loop(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  if (Response(a.response) == Response::gaussian) return blend_backward_response<Response::gaussian>(a, g);
  blend_backward_response<Response::beer_lambert>(a, g);
}

}  // namespace

template <class T>
void fill_blend(Stages<T>& s) {
  s.blend = blend_loop<T>;
  s.blend_backward = blend_backward_loop<T>;
}
template void fill_blend<float>(Stages<float>&);
template void fill_blend<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
