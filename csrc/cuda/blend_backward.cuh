// The parts of blend_backward_kernel.
//
// Backward. The list back to front, 32 entries at a time; `hits` marks those that a quadrant has to visit. Everything
// that a splat needs from a pixel is two numbers: dE = ∂L/∂ln a and w = T α. The nine sums over pixels (dE times 1, dx,
// dy, dx², dx dy, dy²; w times the pixel's gradient) are linear in them. So a warp first goes pixel-parallel over a few
// splats and leaves (dE, w) in shared memory, then splat-parallel: a lane sums a share of the pixels of one splat. That
// takes two shuffles per sum and a few splats instead of five per sum and splat, and no atomics: the four warps' sums
// meet in shared memory and go to the pair's own slot, and `gather_kernel` adds the slots of a splat in their order.
// The result does not depend on scheduling.
#pragma once
#include "blend_tile.cuh"

namespace splatrender::cuda {

constexpr int kBatch = kWarp;  // entries that are fetched at once
constexpr int kMoments = 6;  // Σ dE times 1, dx, dy, dx², dx dy, dy²; then one sum per channel

// Sums of a pair; the last two, with ABSGRAD, of |dE| times the absolute slope of log2 a along x and y.
template <int D, bool ABSGRAD>
constexpr int kSums = kMoments + D + (ABSGRAD ? 2 : 0);
// Padded to whole quads.
template <int D, bool ABSGRAD>
constexpr int kRow = (kSums<D, ABSGRAD> + 3) / 4;

// Splats that a warp takes from pixel-parallel to splat-parallel at once: as many as static shared memory allows.
template <class T>
constexpr int kChunk = sizeof(T) == 4 ? 8 : 4;

template <class T>
struct alignas(2 * sizeof(T)) PixelTerm {
  T dE, w;
};

// Blocks per multiprocessor to leave registers for: what shared memory admits, as long as nothing spills.
template <int D, class T>
constexpr int kBackwardBlocks =
    sizeof(T) == 8 ? 4
    : D == 4       ? 5
                   : 6;

// Lanes that share the pixels of a splat, and the terms of a splat in shared memory: padded, because two lanes of a
// half-warp must not meet in a bank.
template <class T>
constexpr int kShares = kWarp / kChunk<T>;
template <class T>
constexpr int kTerms = kQuadrantPixels + kShares<T>;

// The two pixels of a lane: transmittance behind the next splat, ⟨gradient, light from behind⟩, gradient, reach.
template <class T>
struct BackwardPixels {
  T Tr[kSlots], behind[kSlots], grad[kSlots][kMaxChannels];
  int last[kSlots];
};

// The shared memory of a block: a batch of the list, and what becomes of it.
template <int D, bool ABSGRAD, class T>
struct BackwardBatch {
  Quad<T> (&heads)[kBatch];
  Quad<T> (&tails)[kBatch];  // as in forward
  T (&colors)[kBatch][kMaxChannels];
  unsigned (&hits)[kBatch];
  PixelTerm<T> (&terms)[kWarps][kChunk<T>][kTerms<T>];
  Quad<T> (&sums)[kWarps][kBatch][kRow<D, ABSGRAD>];
  Quad<T> (&pixel_grads)[kWarps][kQuadrantPixels];
};

// Reads the lane's pixels; raises `furthest` to the last entry that any of them has reached.
template <int D, class T>
__device__ __forceinline__ void read_pixels(const BlendArgs<T>& a, const BlendGrads<T>& g, const Place<T>& at,
                                            int first_channel, BackwardPixels<T>& p, Quad<T>* pixel_grads,
                                            int* furthest) {
  T background[kMaxChannels];
  load_channels<D>(a.backgrounds + at.camera * a.D, a.D, first_channel, background);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
#pragma unroll
    for (int c = 0; c < kMaxChannels; ++c) p.grad[s][c] = T(0);
    p.Tr[s] = p.behind[s] = T(0);
    p.last[s] = 0;
    if (at.inside[s]) {
      const int64_t pixel = at.pixel[s];
      load_channels<D>(g.radiance + pixel * a.D, a.D, first_channel, p.grad[s]);
      p.Tr[s] = a.transmittance[pixel];
      p.last[s] = min(a.last[pixel], at.end - at.begin);
      T beyond = first_channel == 0 ? g.transmittance[pixel] : T(0);
#pragma unroll
      for (int c = 0; c < D; ++c) beyond += background[c] * p.grad[s][c];
      p.behind[s] = p.Tr[s] * beyond;
      atomicMax(furthest, p.last[s]);
    }
    pixel_grads[s * kWarp + at.lane] = {p.grad[s][0], p.grad[s][1], p.grad[s][2], p.grad[s][3]};
  }
}

// Fetches list entries k1 - 1, k1 - 2, ...: entry e of the batch is list entry k1 - 1 - e. Each warp fetches one part.
template <int D, bool ABSGRAD, class T>
__device__ __forceinline__ void fetch_batch(const BlendArgs<T>& a, const Footprint<T>* footprints, const Place<T>& at,
                                            int first_channel, int k1, const BackwardBatch<D, ABSGRAD, T>& batch) {
  const int k = k1 - 1 - at.lane;
  if (at.warp == 3) batch.hits[at.lane] = k >= at.begin ? unsigned(uint16_t(a.hits[k])) : 0u;
  if (k < at.begin || at.warp == 3) return;
  const int64_t id = id_at(a, k);
  if (at.warp == 0) batch.heads[at.lane] = footprints[id].head;
  if (at.warp == 1) batch.tails[at.lane] = footprints[id].tail;
  if (at.warp == 2) {
    T color[kMaxChannels] = {};
    load_channels<D>(a.emission + id * a.D, a.D, first_channel, color);
#pragma unroll
    for (int c = 0; c < D; ++c) batch.colors[at.lane][c] = color[c];
  }
}

// Pixel-parallel: leaves (dE, w) of up to kChunk splats in `terms` and moves the pixels' state in front of them.
// Returns how many, and in `mine` the entry of the splat whose pixels this lane sums afterwards.
template <Response R, int D, bool ABSGRAD, class T>
__device__ __forceinline__ int pixel_terms(const Place<T>& at, const BackwardBatch<D, ABSGRAD, T>& batch, int k1,
                                           BackwardPixels<T>& p, unsigned& todo, int& mine) {
  const int splat = at.lane / kShares<T>;
  int n = 0;
  mine = 0;
  for (; n < kChunk<T> && todo; ++n) {
    const int e = __ffs(int(todo)) - 1;
    todo &= todo - 1;
    const Quad<T> head = batch.heads[e], tail = batch.tails[e];
    const Column<T> column(head, tail.x, tail.y, at.px, at.py);
    const int before = k1 - 1 - e - at.begin;  // entries in front of this one
    mine = splat == n ? e : mine;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const T exponent = column.log2_response(4 * s);
      const bool ok = p.last[s] > before && exponent >= T(kLog2Cutoff);
      const T response = power_of_two(exponent);
      const Opacity<T> o = opacity_of<R>(response);
      const T inverse = reciprocal(o.passes), front = p.Tr[s] * inverse;
      T f = batch.colors[e][0] * p.grad[s][0];
#pragma unroll
      for (int c = 1; c < D; ++c) f = multiply_add(batch.colors[e][c], p.grad[s][c], f);
      const T w = mask_or_zero(ok, o.alpha * front);
      const T dE = mask_or_zero(ok, log_response_vjp<R>(response, o, inverse, front, f, p.behind[s]));
      p.behind[s] = multiply_add(w, f, p.behind[s]);
      p.Tr[s] = select(ok, front, p.Tr[s]);
      batch.terms[at.warp][n][s * kWarp + at.lane] = {dE, w};
    }
  }
  return n;
}

// Splat-parallel: lane (splat, share) sums every kShares-th pixel of entry `mine`, the chunk's splat-th.
template <int D, bool ABSGRAD, class T>
__device__ __forceinline__ void sum_share(const Place<T>& at, const BackwardBatch<D, ABSGRAD, T>& batch, int mine,
                                          T (&sum)[4 * kRow<D, ABSGRAD>]) {
  const int splat = at.lane / kShares<T>, share = at.lane % kShares<T>;
  const T dx0 = T(at.x0 + at.quadrant_x() + share) + T(0.5) - batch.heads[mine].x;
  const T dy0 = T(at.y0 + at.quadrant_y()) + T(0.5) - batch.heads[mine].y;
  constexpr int kAcross = kQuadrant / kShares<T>;  // pixels of the share in a row
#pragma unroll
  for (int m = 0; m < 4 * kRow<D, ABSGRAD>; ++m) sum[m] = T(0);
#pragma unroll
  for (int row = 0; row < kQuadrant; ++row) {
    T row0 = T(0), row1 = T(0);  // Σ dE, Σ dE dx
#pragma unroll
    for (int i = 0; i < kAcross; ++i) {
      const int p = row * kQuadrant + i * kShares<T> + share;
      const PixelTerm<T> term = batch.terms[at.warp][splat][p];
      const Quad<T> pg = batch.pixel_grads[at.warp][p];
      const T dx = dx0 + T(i * kShares<T>), moved = term.dE * dx;
      row0 += term.dE;
      row1 += moved;
      sum[3] = multiply_add(moved, dx, sum[3]);
      sum[kMoments] = multiply_add(term.w, pg.x, sum[kMoments]);
      if (D > 1) sum[kMoments + 1] = multiply_add(term.w, pg.y, sum[kMoments + 1]);
      if (D > 2) sum[kMoments + 2] = multiply_add(term.w, pg.z, sum[kMoments + 2]);
      if (D > 3) sum[kMoments + 3] = multiply_add(term.w, pg.w, sum[kMoments + 3]);
      if constexpr (ABSGRAD) {
        const T xx = T(2) * batch.heads[mine].z, xy = batch.heads[mine].w, yy = T(2) * batch.tails[mine].x;
        const T dy = dy0 + T(row);
        sum[kMoments + D] += magnitude(term.dE * multiply_add(xx, dx, xy * dy));
        sum[kMoments + D + 1] += magnitude(term.dE * multiply_add(xy, dx, yy * dy));
      }
    }
    const T dy = dy0 + T(row), moved = row0 * dy;
    sum[0] += row0;
    sum[1] += row1;
    sum[2] += moved;
    sum[4] = multiply_add(row1, dy, sum[4]);
    sum[5] = multiply_add(moved, dy, sum[5]);
  }
}

// Adds the shares of each splat; the first of its lanes writes the quadrant's sums. n splats are in the chunk.
template <int D, bool ABSGRAD, class T>
__device__ __forceinline__ void add_shares(const Place<T>& at, const BackwardBatch<D, ABSGRAD, T>& batch, int mine,
                                           int n, T (&sum)[4 * kRow<D, ABSGRAD>]) {
#pragma unroll
  for (int step = kShares<T> / 2; step > 0; step /= 2) {
#pragma unroll
    for (int m = 0; m < kSums<D, ABSGRAD>; ++m) sum[m] += __shfl_xor_sync(kAllLanes, sum[m], step);
  }
  if (at.lane % kShares<T> == 0 && at.lane / kShares<T> < n) {
#pragma unroll
    for (int i = 0; i < kRow<D, ABSGRAD>; ++i)
      batch.sums[at.warp][mine][i] = {sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]};
  }
}

// Adds the quadrants that each splat of the batch changed, in order, and writes the pair's slot.
template <int D, bool ABSGRAD, class T>
__device__ __forceinline__ void store_batch(const BlendArgs<T>& a, const BackwardBatch<D, ABSGRAD, T>& batch, int k1,
                                            Quad<T>* slots, uint8_t* written) {
  constexpr int kQuads = kRow<D, ABSGRAD>;
  static_assert(kBatch * kQuads <= kTileThreads, "one quad per thread");
  const int t = threadIdx.x, e = t / kQuads, i = t % kQuads;
  const unsigned hit = t < kBatch * kQuads ? batch.hits[e] : 0u;
  if (!hit) return;
  Quad<T> total = {T(0), T(0), T(0), T(0)};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (!(hit >> (w / 2 * 8 + w % 2 * 2) & kQuadrantHits)) continue;
    const Quad<T> part = batch.sums[w][e][i];
    total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
  }
  const int64_t slot = slot_at(a, k1 - 1 - e);
  slots[slot * kQuads + i] = total;
  if (i == 0) written[slot] = 1;
}

}  // namespace splatrender::cuda
