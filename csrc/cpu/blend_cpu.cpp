// Blending front to back, forward and backward, a tile per task. See blend_tile.h for the layout.
//
// Forward has blocks of pixels as the outer loop, so that a block's transmittance and colour stay in registers.
// Backward has splats as the outer loop, so that a splat's sums do. It walks back to front: the light from behind, S̃,
// is summed as it comes, and the transmittance in front of a splat is recovered by division, T_i = T_{i+1} / (1-α_i).
// Where a pixel was finished early, `last` names the splat. Each (splat, tile) pair writes its sums to a slot of
// its own, and a splat's slots are side by side: no atomics, and the same bits with any number of threads.
#include "blend_tile.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

template <class T>
struct BlendScratch {
  Scratch records, slots, written, order;
};
// One per calling thread: kept between calls: training does not allocate at every step.
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

// Forward takes a stretch of the list at a time: first, for every splat of it, the blocks it reaches and its expansion
// there; then, block by block, the splats that reach it, with the block's pixels in registers.
constexpr int kStretch = 32;  // what is kept per splat fits the first-level cache

template <class T>
struct Stretch {
  BlockExpansion<T> blocks[kStretch];
  alignas(64) T bracket[kStretch][kPixels];
  alignas(64) T seen[kStretch][lanes_of<T>];  // Σ over blocks of T α, with VISIBILITY
  alignas(64) uint32_t reach[kStretch];       // bit per block
  uint32_t hit[kStretch];
  alignas(64) int32_t list[kStretch + 16];
  const T* colors[kStretch];
};

// A tile in the walk forward, and its state.
template <class T>
struct ForwardTile {
  static constexpr int64_t kPlane = kBlocks * kPixels;
  const BlendArgs<T>& a;
  const Record<T>* records;
  TilePlace place;
  int64_t begin, end, channels;
  T* Ts;    // [256] transmittance, 0 outside the image
  T* last;  // [256] how much of the list was blended: all of it unless the pixel fills up before
  T* Cs;    // [channels, 256]

  ForwardTile(const BlendArgs<T>& a_, const Record<T>* records_, int64_t tile, T* state)
      : a(a_),
        records(records_),
        place(place_of(a_, tile)),
        begin(a_.tile_offsets[tile]),
        end(a_.tile_offsets[tile + 1]),
        channels(a_.D),
        Ts(state),
        last(state + kPlane),
        Cs(state + 2 * kPlane) {}
};

// Prepares the n splats of a stretch that begins at entry k0.
template <int D, bool VISIBILITY, class T>
SR_INLINE void expand_stretch(const ForwardTile<T>& t, const Lattice<T>& lattice, int64_t k0, int n,
                              Stretch<T>& stretch) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  for (int j = 0; j < n; ++j) {
    if (k0 + j + 8 < t.end) __builtin_prefetch(t.records + t.a.splat_ids[k0 + j + 8]);
    const int64_t id = t.a.splat_ids[k0 + j];
    const Record<T>& r = t.records[id];
    stretch.reach[j] = expand(r, lattice, T(t.place.x0), T(t.place.y0), stretch.blocks[j]);
    stretch.hit[j] = 0;
    stretch.colors[j] = colors_of<D>(t.a, r, id);
    for (int v = 0; v < kPixels; v += L)
      bracket_of(r, S::load(lattice.lx + v), S::load(lattice.ly + v)).store(stretch.bracket[j] + v);
    if constexpr (VISIBILITY) S(T(0)).store(stretch.seen[j]);
  }
  for (int j = n; j % 16; ++j) stretch.reach[j] = 0;
}

// Blends the n splats of a stretch into block b. Returns whether light still passes a pixel of it.
template <int D, Response R, bool VISIBILITY, class T>
SR_INLINE bool blend_block(const ForwardTile<T>& t, const Lattice<T>& lattice, int64_t k0, int n, int b,
                           Stretch<T>& stretch) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  constexpr int64_t plane = ForwardTile<T>::kPlane;
  const int64_t channels = D > 0 ? D : t.channels;
  const S cutoff{T(kLog2Cutoff)}, opaque{T(kTransmittanceMin)};
  const int count = list_of_block(stretch.reach, n, b, stretch.list);
  bool lives = false;
  for (int v = 0; v < kPixels; v += L) {
    const int at = b * kPixels + v;
    const S lx = S::load(lattice.lx + v), ly = S::load(lattice.ly + v);
    S Tr = S::load(t.Ts + at), C[D > 0 ? D : 1];
    if constexpr (D > 0)
      for (int c = 0; c < D; ++c) C[c] = S::load(t.Cs + c * plane + at);
    for (int i = 0; i < count; ++i) {
      const int j = stretch.list[i];
      const auto clear = Tr > opaque;
      if (!any(clear)) break;
      const S e = log2_response(stretch.blocks[j], b, S::load(stretch.bracket[j] + v), lx, ly);
      const auto ok = clear & (e >= cutoff);
      stretch.hit[j] |= uint32_t(any(ok)) << b;
      const Opacity<S> o = opacity_of<R>(power_of_two(e));
      const S w = mask_or_zero(ok, o.alpha * Tr);
      Tr = select(ok, o.passes * Tr, Tr);
      const auto full = ok & (Tr <= opaque);
      if (any(full)) select(full, S(T(k0 + j + 1 - t.begin)), S::load(t.last + at)).store(t.last + at);
      if constexpr (VISIBILITY) (S::load(stretch.seen[j]) + w).store(stretch.seen[j]);
      const T* color = stretch.colors[j];
      if constexpr (D > 0)
        for (int c = 0; c < D; ++c) C[c] += w * S(color[c]);
      else
        for (int64_t c = 0; c < channels; ++c)
          (S::load(t.Cs + c * plane + at) + w * S(color[c])).store(t.Cs + c * plane + at);
    }
    Tr.store(t.Ts + at);
    if constexpr (D > 0)
      for (int c = 0; c < D; ++c) C[c].store(t.Cs + c * plane + at);
    lives |= any(Tr > opaque);
  }
  return lives;
}

template <int D, class T>
SR_INLINE void write_pixels(const ForwardTile<T>& t) {
  constexpr int64_t plane = ForwardTile<T>::kPlane;
  const int64_t channels = D > 0 ? D : t.channels;
  const auto& a = t.a;
  const T *Ts = t.Ts, *last = t.last, *Cs = t.Cs, *background = a.backgrounds + t.place.camera * channels;
  for_pixels(a, t.place, [&](int p, int64_t offset) {
    const int64_t pixel = t.place.first_pixel + offset;
    a.transmittance[pixel] = Ts[p];
    a.last[pixel] = int32_t(last[p]);
    for (int64_t c = 0; c < channels; ++c) a.radiance[pixel * channels + c] = Cs[c * plane + p] + Ts[p] * background[c];
  });
}

template <int D, Response R, bool VISIBILITY, class T>
void forward_tile(const BlendArgs<T>& a, const Record<T>* records, int64_t tile, T* seen, T* state) {
  using S = Pack<T, lanes_of<T>>;
  const ForwardTile<T> t(a, records, tile, state);
  const Lattice<T> lattice = make_lattice<T>();
  for (int64_t i = 0; i < (2 + t.channels) * t.kPlane; ++i) state[i] = 0;
  uint32_t alive = 0;
  for_pixels(a, t.place,
             [&](int p, int64_t) { t.Ts[p] = 1, t.last[p] = T(t.end - t.begin), alive |= 1u << (p / kPixels); });

  Stretch<T> stretch;
  int64_t k0 = t.begin;
  for (; k0 < t.end && alive; k0 += kStretch) {
    const int n = int(t.end - k0 < kStretch ? t.end - k0 : kStretch);
    expand_stretch<D, VISIBILITY>(t, lattice, k0, n, stretch);
    for (uint32_t todo = alive; todo; todo &= todo - 1) {
      const int b = __builtin_ctz(todo);
      if (!blend_block<D, R, VISIBILITY>(t, lattice, k0, n, b, stretch)) alive &= ~(1u << b);
    }
    for (int j = 0; j < n; ++j) {
      a.hits[k0 + j] = int16_t(stretch.hit[j]);
      if constexpr (VISIBILITY) seen[a.slots[k0 + j]] = horizontal_sum(S::load(stretch.seen[j]));
    }
  }
  for (int64_t k = k0; k < t.end; ++k) {  // behind an opaque tile
    a.hits[k] = 0;
    if constexpr (VISIBILITY) seen[a.slots[k]] = 0;
  }
  write_pixels<D>(t);
}

// Sums that a (splat, tile) pair collects: ∂L/∂ln a times 1, dx, dy, dx², dx dy, dy², then one per channel, then, with
// ABSGRAD, those of |∂L/∂ln a| times the absolute slope of log2 a along x and y.
constexpr int kMoments = 6;
template <bool ABSGRAD>
constexpr int kSlopes = ABSGRAD ? 2 : 0;

// A tile in the walk back, and its state.
template <class T>
struct BackwardTile {
  static constexpr int64_t kPlane = kBlocks * kPixels;
  const BlendArgs<T>& a;
  const Record<T>* records;
  TilePlace place;
  int64_t begin, end, channels;
  T* Ts;      // [256] transmittance behind the next splat
  T* behind;  // [256] ⟨gradient of the pixel, S̃⟩ of the next splat
  T* last;    // [256] see forward; 0 outside the image
  T* gs;      // [channels, 256] gradient of the pixel
  T* sums;    // [channels, L] sums over pixels, any-D path only

  BackwardTile(const BlendArgs<T>& a_, const Record<T>* records_, int64_t tile, T* state)
      : a(a_),
        records(records_),
        place(place_of(a_, tile)),
        begin(a_.tile_offsets[tile]),
        end(a_.tile_offsets[tile + 1]),
        channels(a_.D),
        Ts(state),
        behind(state + kPlane),
        last(state + 2 * kPlane),
        gs(state + 3 * kPlane),
        sums(gs + channels * kPlane) {}
};

// Adds to `total` the sums over the pixels of the blocks in `hit` for entry k of the list, a splat whose record is r,
// and moves the pixels' state in front of it.
template <int D, Response R, bool ABSGRAD, class T, class S>
SR_INLINE void add_pixels(const BackwardTile<T>& t, const Lattice<T>& lattice, int64_t k, const Record<T>& r,
                          const T* color, const BlockExpansion<T>& block, uint32_t hit, S* total) {
  constexpr int L = lanes_of<T>;
  constexpr int64_t plane = BackwardTile<T>::kPlane;
  const int64_t channels = D > 0 ? D : t.channels;
  T *Ts = t.Ts, *behind = t.behind, *last = t.last, *gs = t.gs, *sums = t.sums;
  const T ox = T(t.place.x0) - r.x, oy = T(t.place.y0) - r.y;
  const S cutoff{T(kLog2Cutoff)}, zero(T(0));
  S* total_color = total + kMoments;
  for (int v = 0; v < kPixels / L; ++v) {
    const S lx = S::load(lattice.lx + v * L), ly = S::load(lattice.ly + v * L);
    const S bracket = bracket_of(r, lx, ly), before(T(k - t.begin));
    [[maybe_unused]] const S along_x = S(2 * r.xx) * lx + S(r.xy) * ly;  // slope of the bracket
    [[maybe_unused]] const S along_y = S(2 * r.yy) * ly + S(r.xy) * lx;
    // moments about the block's centre: A = Σ_blocks dE · (1, X, Y, X², XY, Y²), shifted by (lx, ly) at the end
    S A0 = zero, A1 = zero, A2 = zero, A3 = zero, A4 = zero, A5 = zero;
    [[maybe_unused]] S B1 = zero, B2 = zero;  // Σ |dE| times the absolute slopes
    for (uint32_t todo = hit; todo; todo &= todo - 1) {
      const int b = __builtin_ctz(todo), at = b * kPixels + v * L;
      const S e = log2_response(block, b, bracket, lx, ly);
      const auto ok = (S::load(last + at) > before) & (e >= cutoff);
      if (kPixels != L && !any(ok)) continue;
      const S response = power_of_two(e);
      const Opacity<S> o = opacity_of<R>(response);
      const S inverse = reciprocal(o.passes), after = S::load(Ts + at), Tr = after * inverse;
      const S w = mask_or_zero(ok, o.alpha * Tr);
      S f = zero;
      for (int64_t c = 0; c < channels; ++c) {
        const S gc = S::load(gs + c * plane + at);
        f += gc * S(color[c]);
        if constexpr (D > 0)
          total_color[c] += w * gc;
        else
          (S::load(sums + c * L) + w * gc).store(sums + c * L);
      }
      const S rest = S::load(behind + at);
      (rest + w * f).store(behind + at);
      select(ok, Tr, after).store(Ts + at);
      const S dE = mask_or_zero(ok, log_response_vjp<R>(response, o, inverse, Tr, f, rest));
      const S X(lattice.bx[b] + ox), Y(lattice.by[b] + oy);  // block centre - splat
      const S dX = dE * X, dY = dE * Y;
      A0 += dE, A1 += dX, A2 += dY;
      A3 += dX * X, A4 += dX * Y, A5 += dY * Y;
      if constexpr (ABSGRAD) {
        B1 += magnitude(dE * (S(block.e10[b]) + along_x));
        B2 += magnitude(dE * (S(block.e01[b]) + along_y));
      }
    }
    total[0] += A0;
    total[1] += A1 + lx * A0;
    total[2] += A2 + ly * A0;
    total[3] += A3 + lx * (A1 + A1 + lx * A0);
    total[4] += A4 + lx * A2 + ly * (A1 + lx * A0);
    total[5] += A5 + ly * (A2 + A2 + ly * A0);
    if constexpr (ABSGRAD) total[kMoments + D] += B1, total[kMoments + D + 1] += B2;
  }
}

template <int D, Response R, bool ABSGRAD, class T>
void backward_tile(const BlendArgs<T>& a, const BlendGrads<T>& g, const Record<T>* records, int64_t tile, T* slots,
                   uint8_t* written, T* state) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  constexpr int numbers = kMoments + D + kSlopes<ABSGRAD>;  // numbers that are summed in registers
  const BackwardTile<T> t(a, records, tile, state);
  const int64_t channels = D > 0 ? D : a.D, stride = kMoments + channels + kSlopes<ABSGRAD>;
  const Lattice<T> lattice = make_lattice<T>();
  if (t.begin == t.end) return;
  constexpr int64_t plane = kBlocks * kPixels;
  T *Ts = t.Ts, *behind = t.behind, *last = t.last, *gs = t.gs;
  const T* background = a.backgrounds + t.place.camera * channels;
  for (int64_t i = 0; i < (3 + channels) * plane; ++i) state[i] = 0;
  for_pixels(a, t.place, [&](int p, int64_t offset) {
    const int64_t pixel = t.place.first_pixel + offset;
    Ts[p] = a.transmittance[pixel];
    last[p] = T(a.last[pixel]);
    T beyond = g.transmittance[pixel];
    for (int64_t c = 0; c < channels; ++c) {
      const T d = g.radiance[pixel * channels + c];
      gs[c * plane + p] = d;
      beyond += background[c] * d;
    }
    behind[p] = Ts[p] * beyond;
  });
  const S zero(T(0));
  BlockExpansion<T> block;
  for (int64_t k = t.end - 1; k >= t.begin; --k) {
    const int64_t next = k - 12;
    if (next >= t.begin && a.hits[next]) {  // records and slots are all over memory
      const T* to = slots + int64_t(a.slots[next]) * stride;
      __builtin_prefetch(records + a.splat_ids[next]);
      __builtin_prefetch(to, 1), __builtin_prefetch(to + stride - 1, 1);
    }
    const uint32_t hit = uint16_t(a.hits[k]);
    if (!hit) continue;
    written[a.slots[k]] = 1;
    T* slot = slots + int64_t(a.slots[k]) * stride;
    const int64_t id = a.splat_ids[k];
    const Record<T>& r = records[id];
    const T* color = colors_of<D>(a, r, id);
    expand(r, lattice, T(t.place.x0), T(t.place.y0), block);
    S total[numbers];
    for (int m = 0; m < numbers; ++m) total[m] = zero;
    if constexpr (D == 0)
      for (int64_t c = 0; c < channels; ++c) zero.store(t.sums + c * L);
    add_pixels<D, R, ABSGRAD>(t, lattice, k, r, color, block, hit, total);
    if constexpr (D > 0) {
      horizontal_sums(total, numbers, slot);
    } else {
      horizontal_sums(total, kMoments, slot);
      for (int64_t c = 0; c < channels; ++c) slot[kMoments + c] = horizontal_sum(S::load(t.sums + c * L));
      if constexpr (ABSGRAD) horizontal_sums(total + kMoments, 2, slot + kMoments + channels);
    }
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
  const int64_t state = (2 + a.D) * kBlocks * kPixels;
  if (!a.visibility) {
    for_tiles(a, state,
              [&](int64_t tile, T* s) { forward_tile<D, R, false>(a, records, tile, static_cast<T*>(nullptr), s); });
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

template <int D, Response R, bool ABSGRAD, class T>
void blend_backward_channels(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  BlendScratch<T>& scratch = blend_scratch<T>();
  const Record<T>* records = make_records(a, scratch.records);
  const int64_t stride = kMoments + a.D + kSlopes<ABSGRAD>;
  T* slots = scratch.slots.template get<T>(a.P * stride + 1);
  // most pairs are behind an opaque surface and contribute nothing: a byte marks the others, only whose slots are used
  uint8_t* written = scratch.written.template get<uint8_t>(a.P + 1);
  std::memset(written, 0, a.P);
  const int64_t state = (3 + a.D) * kBlocks * kPixels + a.D * lanes_of<T>;
  for_tiles(a, state,
            [&](int64_t tile, T* s) { backward_tile<D, R, ABSGRAD>(a, g, records, tile, slots, written, s); });

  // a splat's pairs are side by side: sum them, then go from ln a to the splat's numbers
  constexpr int64_t kChunk = 1024;
  const int64_t CN = a.C * a.N;
  parallel_for((CN + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * kChunk < CN ? (chunk + 1) * kChunk : CN;
    for (int64_t i = chunk * kChunk; i < end; ++i) {
      T m[kMoments] = {};
      [[maybe_unused]] T slope[2] = {};
      T* color = g.emission + i * a.D;
      for (int64_t c = 0; c < a.D; ++c) color[c] = 0;
      const int32_t first = a.splat_offsets[i], last = a.splat_offsets[i + 1];
      for (int32_t s = first; s < last; ++s) {
        if (!written[s]) continue;
        const T* slot = slots + int64_t(s) * stride;
        for (int k = 0; k < kMoments; ++k) m[k] += slot[k];
        for (int64_t c = 0; c < a.D; ++c) color[c] += slot[kMoments + c];
        for (int k = 0; k < kSlopes<ABSGRAD>; ++k) slope[k] += slot[kMoments + a.D + k];
      }
      constexpr T kNone[3] = {};  // a splat that meets no tile may hold anything
      const T* q = first < last ? a.conics + 3 * i : kNone;
      g.means2d[2 * i] = q[0] * m[1] + q[1] * m[2];
      g.means2d[2 * i + 1] = q[1] * m[1] + q[2] * m[2];
      g.conics[3 * i] = T(-0.5) * m[3];
      g.conics[3 * i + 1] = -m[4];
      g.conics[3 * i + 2] = T(-0.5) * m[5];
      g.peaks[i] = first < last ? m[0] / a.peaks[i] : T(0);
      if constexpr (ABSGRAD)  // from slopes of log2 a to those of ln a
        for (int k = 0; k < 2; ++k) g.absgrad[2 * i + k] = T(1 / kLog2E) * slope[k];
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
template <Response R, bool ABSGRAD, class T>
void blend_backward_response(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  if (a.D == 3) return blend_backward_channels<3, R, ABSGRAD>(a, g);
  if (a.D == 4) return blend_backward_channels<4, R, ABSGRAD>(a, g);
  blend_backward_channels<0, R, ABSGRAD>(a, g);
}
template <bool ABSGRAD, class T>
void blend_backward_any(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  if (Response(a.response) == Response::gaussian) return blend_backward_response<Response::gaussian, ABSGRAD>(a, g);
  blend_backward_response<Response::beer_lambert, ABSGRAD>(a, g);
}
template <class T>
void blend_backward_loop(const BlendArgs<T>& a, const BlendGrads<T>& g) {
  if (g.absgrad) return blend_backward_any<true>(a, g);
  blend_backward_any<false>(a, g);
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
