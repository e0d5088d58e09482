// Blending front to back, forward and backward. See blend_tile.cuh for who owns what.
//
// Forward. 128 entries of the tile's list at a time: each thread fetches one splat and tests its ellipse exactly
// against the four quadrants; then each warp walks the entries that meet its own. Which 4x4 blocks a splat changed is
// voted on by the warp and kept as `hits`; how far down its list a pixel got until it was opaque, as `last`.
//
// Backward. The list back to front, 32 entries at a time; `hits` names those that a quadrant has to look at. Everything
// that a splat needs from a pixel is two numbers: dE = ∂L/∂ln a and w = T α. The nine sums over pixels (dE times 1, dx,
// dy, dx², dx dy, dy²; w times the pixel's gradient) are linear in them. So a warp first goes pixel-parallel over a few
// splats and leaves (dE, w) in shared memory, then splat-parallel: a lane sums a share of the pixels of one splat. That
// takes two shuffles per sum and a few splats instead of five per sum and splat, and no atomics: the four warps' sums
// meet in shared memory and go to the pair's own slot, and `gather_kernel` adds the slots of a splat in their order.
// The result does not depend on scheduling.
//
// More than four channels are blended in passes of four. Backward is linear in the gradient of the picture, so the
// passes simply add up.
#include <type_traits>

#include "blend_tile.cuh"
#include "stages_cuda.h"

namespace splatrender::cuda {

// ---- forward -------------------------------------------------------------------------------------------------

constexpr int kStretch = kTileThreads;  // entries that are fetched at once

// The four bits of a quadrant's blocks from the votes of its 8x4 upper and lower pixels.
__device__ __forceinline__ unsigned blocks_hit(unsigned upper, unsigned lower) {
  constexpr unsigned kLeft = 0x0f0f0f0fu, kRight = 0xf0f0f0f0u;
  return (upper & kLeft ? 1u : 0u) | (upper & kRight ? 2u : 0u) | (lower & kLeft ? 16u : 0u) |
         (lower & kRight ? 32u : 0u);
}

template <int D, Response R, bool VISIBILITY, class T>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 5 : 10)
    blend_kernel(BlendArgs<T> a, const Footprint<T>* footprints, const int32_t* order, T* seen, int first_channel) {
  __shared__ Quad<T> heads[kStretch];  // x, y, xx, xy
  __shared__ Quad<T> tails[kStretch];  // yy, log2_peak, color 0, color 1
  __shared__ T colors[kStretch][2];  // color 2, color 3
  __shared__ unsigned reach[kStretch];  // quadrants met
  __shared__ unsigned hits[kStretch];  // blocks changed
  const Place<T> at(a, order);
  const int t = threadIdx.x;
  const T opaque = T(kTransmittanceMin), cutoff = T(kLog2Cutoff);

  T Tr[kSlots], C[kSlots][D];
  int last[kSlots];
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    Tr[s] = at.inside[s] ? T(1) : T(0);  // nothing is blended where nothing passes
    last[s] = 0;
#pragma unroll
    for (int c = 0; c < D; ++c) C[s][c] = T(0);
  }
  hits[t] = 0;

  int k0 = at.begin;
  for (; k0 < at.end; k0 += kStretch) {
    if (!__syncthreads_or(Tr[0] > opaque || Tr[1] > opaque)) break;
    if (first_channel == 0 && k0 > at.begin) a.hits[k0 - kStretch + t] = int16_t(hits[t]);
    hits[t] = 0;
    reach[t] = 0;
    if (k0 + t < at.end) {
      const int64_t id = id_at(a, k0 + t);
      const Footprint<T> f = footprints[id];
      T color[kMaxChannels];
      load_channels<D>(a.emission + id * a.D, a.D, first_channel, color);
      heads[t] = f.head;
      tails[t] = {f.tail.x, f.tail.y, color[0], D > 1 ? color[1] : T(0)};
      if (D > 2) colors[t][0] = color[2];
      if (D > 3) colors[t][1] = color[3];
      reach[t] = quadrants_met(f, at.x0, at.y0);
    }
    __syncthreads();

    for (int j0 = 0; j0 < kStretch && k0 + j0 < at.end; j0 += kWarp) {
      if (!__any_sync(kAllLanes, Tr[0] > opaque || Tr[1] > opaque)) break;
      unsigned todo = __ballot_sync(kAllLanes, reach[j0 + at.lane] >> at.warp & 1u);
      unsigned upper = 0, lower = 0;  // votes on the splat of this lane's number
      T sum = T(0);  // and what it contributes to the quadrant
      while (todo) {
        const int j = __ffs(int(todo)) - 1;
        todo &= todo - 1;
        const Quad<T> head = heads[j0 + j], tail = tails[j0 + j];
        T color[kMaxChannels] = {tail.z, tail.w};
        if (D > 2) color[2] = colors[j0 + j][0];
        if (D > 3) color[3] = colors[j0 + j][1];
        const Column<T> column(head, tail.x, tail.y, at.px, at.py);
        unsigned vote[kSlots];
        T light = T(0);
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
          const T e = column.log2_response(4 * s);
          const bool clear = Tr[s] > opaque, ok = clear && e >= cutoff;
          const Opacity<T> o = opacity_of<R>(power_of_two(e));
          const T w = mask_or_zero(ok, o.alpha * Tr[s]);
          last[s] = clear ? k0 + j0 + j + 1 - at.begin : last[s];
          Tr[s] = select(ok, o.passes * Tr[s], Tr[s]);
#pragma unroll
          for (int c = 0; c < D; ++c) C[s][c] = multiply_add(w, color[c], C[s][c]);
          vote[s] = __ballot_sync(kAllLanes, ok);
          if (VISIBILITY) light += w;
        }
        if (VISIBILITY) light = warp_sum(light);
        if (at.lane == j) upper = vote[0], lower = vote[1], sum = light;
      }
      const unsigned hit = blocks_hit(upper, lower);
      if (hit) atomicOr(&hits[j0 + at.lane], hit << at.hit_shift());
      if (VISIBILITY && hit) seen[slot_at(a, k0 + j0 + at.lane) * kWarps + at.warp] = sum;
    }
  }
  __syncthreads();
  if (first_channel == 0) {  // of the last stretch, and of what lies behind an opaque tile
    const int done = k0 > at.begin ? k0 - kStretch : k0;
    for (int k = done + t; k < at.end; k += kTileThreads) a.hits[k] = k < k0 ? int16_t(hits[t]) : int16_t(0);
  }

  T background[kMaxChannels];
  load_channels<D>(a.backgrounds + at.camera * a.D, a.D, first_channel, background);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if (!at.inside[s]) continue;
    const int64_t pixel = at.pixel[s];
    if (first_channel == 0) {
      a.transmittance[pixel] = Tr[s];
      a.last[pixel] = Tr[s] > opaque ? at.end - at.begin : last[s];
    }
#pragma unroll
    for (int c = 0; c < D; ++c)
      if (first_channel + c < a.D) a.radiance[pixel * a.D + first_channel + c] = C[s][c] + Tr[s] * background[c];
  }
}

// Visibility of a splat: what its pairs' quadrants saw. One thread per splat and camera.
template <class T>
__global__ void __launch_bounds__(256) visibility_kernel(BlendArgs<T> a, const Quad<T>* seen) {
  const int64_t i = item();
  if (i >= a.C * a.N) return;
  const int first = max(a.splat_offsets[i], 0), last = min(a.splat_offsets[i + 1], int(a.P));
  T sum = T(0);
  for (int k = first; k < last; ++k) sum += (seen[k].x + seen[k].y) + (seen[k].z + seen[k].w);
  a.visibility[i] = sum;
}

// ---- backward ------------------------------------------------------------------------------------------------

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

template <int D, Response R, bool ABSGRAD, class T>
__global__ void __launch_bounds__(kTileThreads, kBackwardBlocks<D, T>)
    blend_backward_kernel(BlendArgs<T> a, BlendGrads<T> g, const Footprint<T>* footprints, const int32_t* order,
                          Quad<T>* slots, uint8_t* written, int first_channel) {
  constexpr int kShares = kWarp / kChunk<T>;  // lanes that share the pixels of a splat
  constexpr int kQuads = kRow<D, ABSGRAD>;
  constexpr int kStride = kQuadrantPixels + kShares;  // so that no two lanes of a half-warp meet in a bank
  __shared__ Quad<T> heads[kBatch], tails[kBatch];  // as in forward
  __shared__ T colors[kBatch][kMaxChannels];
  __shared__ unsigned hits[kBatch];
  __shared__ PixelTerm<T> terms[kWarps][kChunk<T>][kStride];
  __shared__ Quad<T> sums[kWarps][kBatch][kQuads];
  __shared__ Quad<T> pixel_grads[kWarps][kQuadrantPixels];
  __shared__ int furthest;
  const Place<T> at(a, order);
  const int t = threadIdx.x;
  const T cutoff = T(kLog2Cutoff);

  // The pixels of a lane: transmittance behind the next splat, ⟨gradient, light from behind⟩, gradient, reach.
  T Tr[kSlots], behind[kSlots], grad[kSlots][kMaxChannels];
  int last[kSlots];
  T background[kMaxChannels];
  load_channels<D>(a.backgrounds + at.camera * a.D, a.D, first_channel, background);
  if (t == 0) furthest = 0;
  __syncthreads();
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
#pragma unroll
    for (int c = 0; c < kMaxChannels; ++c) grad[s][c] = T(0);
    Tr[s] = behind[s] = T(0);
    last[s] = 0;
    if (at.inside[s]) {
      const int64_t pixel = at.pixel[s];
      load_channels<D>(g.radiance + pixel * a.D, a.D, first_channel, grad[s]);
      Tr[s] = a.transmittance[pixel];
      last[s] = min(a.last[pixel], at.end - at.begin);
      T beyond = first_channel == 0 ? g.transmittance[pixel] : T(0);
#pragma unroll
      for (int c = 0; c < D; ++c) beyond += background[c] * grad[s][c];
      behind[s] = Tr[s] * beyond;
      atomicMax(&furthest, last[s]);
    }
    pixel_grads[at.warp][s * kWarp + at.lane] = {grad[s][0], grad[s][1], grad[s][2], grad[s][3]};
  }
  __syncthreads();

  for (int k1 = at.begin + furthest; k1 > at.begin; k1 -= kBatch) {
    // Entry e of the batch is list entry k1 - 1 - e. Each warp fetches one part of it.
    const int k = k1 - 1 - at.lane;
    if (at.warp == 3) hits[at.lane] = k >= at.begin ? unsigned(uint16_t(a.hits[k])) : 0u;
    if (k >= at.begin) {
      if (at.warp < 3) {
        const int64_t id = id_at(a, k);
        if (at.warp == 0) heads[at.lane] = footprints[id].head;
        if (at.warp == 1) tails[at.lane] = footprints[id].tail;
        if (at.warp == 2) {
          T color[kMaxChannels] = {};
          load_channels<D>(a.emission + id * a.D, a.D, first_channel, color);
#pragma unroll
          for (int c = 0; c < D; ++c) colors[at.lane][c] = color[c];
        }
      }
    }
    __syncthreads();

    unsigned todo = __ballot_sync(kAllLanes, hits[at.lane] >> at.hit_shift() & kQuadrantHits);
    while (todo) {
      // Pixel-parallel: (dE, w) of up to kChunk splats.
      const int splat = at.lane / kShares, share = at.lane % kShares;  // of this lane, in the second part
      int mine = 0, n = 0;
      for (; n < kChunk<T> && todo; ++n) {
        const int e = __ffs(int(todo)) - 1;
        todo &= todo - 1;
        const Quad<T> head = heads[e], tail = tails[e];
        const Column<T> column(head, tail.x, tail.y, at.px, at.py);
        const int before = k1 - 1 - e - at.begin;  // entries in front of this one
        mine = splat == n ? e : mine;
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
          const T exponent = column.log2_response(4 * s);
          const bool ok = last[s] > before && exponent >= cutoff;
          const T response = power_of_two(exponent);
          const Opacity<T> o = opacity_of<R>(response);
          const T inverse = reciprocal(o.passes), front = Tr[s] * inverse;
          T f = colors[e][0] * grad[s][0];
#pragma unroll
          for (int c = 1; c < D; ++c) f = multiply_add(colors[e][c], grad[s][c], f);
          const T w = mask_or_zero(ok, o.alpha * front);
          const T dE = mask_or_zero(ok, log_response_vjp<R>(response, o, inverse, front, f, behind[s]));
          behind[s] = multiply_add(w, f, behind[s]);
          Tr[s] = select(ok, front, Tr[s]);
          terms[at.warp][n][s * kWarp + at.lane] = {dE, w};
        }
      }
      __syncwarp();

      // Splat-parallel: lane (splat, share) sums every kShares-th pixel.
      const T dx0 = T(at.x0 + at.quadrant_x() + share) + T(0.5) - heads[mine].x;
      const T dy0 = T(at.y0 + at.quadrant_y()) + T(0.5) - heads[mine].y;
      T sum[4 * kQuads];
#pragma unroll
      for (int m = 0; m < 4 * kQuads; ++m) sum[m] = T(0);
      constexpr int kAcross = kQuadrant / kShares;  // of the share's pixels in a row
#pragma unroll
      for (int row = 0; row < kQuadrant; ++row) {
        T row0 = T(0), row1 = T(0);  // Σ dE, Σ dE dx
#pragma unroll
        for (int i = 0; i < kAcross; ++i) {
          const int p = row * kQuadrant + i * kShares + share;
          const PixelTerm<T> term = terms[at.warp][splat][p];
          const Quad<T> pg = pixel_grads[at.warp][p];
          const T dx = dx0 + T(i * kShares), moved = term.dE * dx;
          row0 += term.dE;
          row1 += moved;
          sum[3] = multiply_add(moved, dx, sum[3]);
          sum[kMoments] = multiply_add(term.w, pg.x, sum[kMoments]);
          if (D > 1) sum[kMoments + 1] = multiply_add(term.w, pg.y, sum[kMoments + 1]);
          if (D > 2) sum[kMoments + 2] = multiply_add(term.w, pg.z, sum[kMoments + 2]);
          if (D > 3) sum[kMoments + 3] = multiply_add(term.w, pg.w, sum[kMoments + 3]);
          if constexpr (ABSGRAD) {
            const T xx = T(2) * heads[mine].z, xy = heads[mine].w, yy = T(2) * tails[mine].x, dy = dy0 + T(row);
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
#pragma unroll
      for (int step = kShares / 2; step > 0; step /= 2) {
#pragma unroll
        for (int m = 0; m < kSums<D, ABSGRAD>; ++m) sum[m] += __shfl_xor_sync(kAllLanes, sum[m], step);
      }
      if (share == 0 && splat < n) {
#pragma unroll
        for (int i = 0; i < kQuads; ++i)
          sums[at.warp][mine][i] = {sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]};
      }
      __syncwarp();  // the terms are read before the next chunk overwrites them
    }
    __syncthreads();

    // The quadrants that a splat changed, added in order, go to the pair's slot.
    static_assert(kBatch * kQuads <= kTileThreads, "one quad per thread");
    const int e = t / kQuads, i = t % kQuads;
    const unsigned hit = t < kBatch * kQuads ? hits[e] : 0u;
    if (hit) {
      Quad<T> total = {T(0), T(0), T(0), T(0)};
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        if (!(hit >> (w / 2 * 8 + w % 2 * 2) & kQuadrantHits)) continue;
        const Quad<T> part = sums[w][e][i];
        total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
      }
      const int64_t slot = slot_at(a, k1 - 1 - e);
      slots[slot * kQuads + i] = total;
      if (i == 0) written[slot] = 1;
    }
    __syncthreads();
  }
}

// Adds the slots of a splat in their order, then goes from ln a to the splat's numbers. One thread per splat and
// camera. The first pass writes, further ones add what their channels contribute to the shared sums.
template <int D, bool ABSGRAD, class T>
__global__ void __launch_bounds__(256)
    gather_kernel(BlendArgs<T> a, BlendGrads<T> g, const Quad<T>* slots, const uint8_t* written, int first_channel) {
  const int64_t i = item();
  if (i >= a.C * a.N) return;
  constexpr int kQuads = kRow<D, ABSGRAD>;
  T sum[4 * kQuads];
#pragma unroll
  for (int m = 0; m < 4 * kQuads; ++m) sum[m] = T(0);
  const int first = max(a.splat_offsets[i], 0), last = min(a.splat_offsets[i + 1], int(a.P));
  for (int k = first; k < last; ++k) {
    if (!written[k]) continue;
#pragma unroll
    for (int m = 0; m < kQuads; ++m) {
      const Quad<T> part = slots[int64_t(k) * kQuads + m];
      sum[4 * m] += part.x, sum[4 * m + 1] += part.y, sum[4 * m + 2] += part.z, sum[4 * m + 3] += part.w;
    }
  }
  const bool add = first_channel > 0, listed = first < last;
  const auto put = [&](T* to, T value) { *to = add ? *to + value : value; };
  const T* q = a.conics + 3 * i;  // a splat that meets no tile may hold anything
  put(g.means2d + 2 * i, listed ? q[0] * sum[1] + q[1] * sum[2] : T(0));
  put(g.means2d + 2 * i + 1, listed ? q[1] * sum[1] + q[2] * sum[2] : T(0));
  put(g.conics + 3 * i, T(-0.5) * sum[3]);
  put(g.conics + 3 * i + 1, -sum[4]);
  put(g.conics + 3 * i + 2, T(-0.5) * sum[5]);
  put(g.peaks + i, listed ? sum[0] / a.peaks[i] : T(0));
  if constexpr (ABSGRAD) {  // from slopes of log2 a to those of ln a
    g.absgrad[2 * i] = T(1 / kLog2E) * sum[kMoments + D];
    g.absgrad[2 * i + 1] = T(1 / kLog2E) * sum[kMoments + D + 1];
  }
#pragma unroll
  for (int c = 0; c < D; ++c)
    if (first_channel + c < a.D) g.emission[i * a.D + first_channel + c] = sum[kMoments + c];
}

// ---- launches ------------------------------------------------------------------------------------------------

// f(channels of a pass, first channel) until all are done; float has kernels for 1, 3 and 4 channels at once.
template <class T, class F>
Status for_channels(int64_t channels, const F& f) {
  for (int first = 0; first < channels; first += kMaxChannels) {
    const int64_t rest = channels - first;
    if constexpr (sizeof(T) == 4) {
      if (rest == 1) {
        SR_TRY(f(std::integral_constant<int, 1>{}, first));
        continue;
      }
      if (rest <= 3) {
        SR_TRY(f(std::integral_constant<int, 3>{}, first));
        continue;
      }
    }
    SR_TRY(f(std::integral_constant<int, 4>{}, first));
  }
  return {};
}

template <Response R, class T>
Status blend_response(const BlendArgs<T>& a, const Prepared<T>& p, T* seen, Context& context) {
  return for_channels<T>(a.D, [&](auto channels, int first) {
    constexpr int D = decltype(channels)::value;
    const dim3 grid{unsigned(p.tiles)}, block{kTileThreads};
    if (seen && first == 0)
      return launch("blend_kernel", blend_kernel<D, R, true, T>, grid, block, context.stream, a, p.footprints, p.order,
                    seen, first);
    return launch("blend_kernel", blend_kernel<D, R, false, T>, grid, block, context.stream, a, p.footprints, p.order,
                  static_cast<T*>(nullptr), first);
  });
}

template <Response R, bool ABSGRAD, class T>
Status blend_backward_response(const BlendArgs<T>& a, const BlendGrads<T>& g, const Prepared<T>& p, Context& context) {
  uint8_t* written = context.scratch<uint8_t>(a.P);
  SR_TRY(fill_zero(written, a.P, context.stream));
  Quad<T>* slots = context.scratch<Quad<T>>(a.P * kRow<kMaxChannels, ABSGRAD>);
  return for_channels<T>(a.D, [&](auto channels, int first) {
    constexpr int D = decltype(channels)::value;
    SR_TRY(launch("blend_backward_kernel", blend_backward_kernel<D, R, ABSGRAD, T>, dim3(unsigned(p.tiles)),
                  dim3(kTileThreads), context.stream, a, g, p.footprints, p.order, slots, written, first));
    return launch_over("gather_kernel", gather_kernel<D, ABSGRAD, T>, a.C * a.N, context.stream, a, g,
                       static_cast<const Quad<T>*>(slots), static_cast<const uint8_t*>(written), first);
  });
}

template <class T>
Status blend(const BlendArgs<T>& a, Context& context) {
  Prepared<T> p;
  SR_TRY(prepare(a, context, p));
  T* seen = nullptr;
  if (a.visibility) {
    seen = context.scratch<T>(a.P * kWarps);
    SR_TRY(fill_zero(seen, a.P * kWarps * int64_t(sizeof(T)), context.stream));
  }
  if (p.tiles > 0) {
    if (Response(a.response) == Response::gaussian)
      SR_TRY(blend_response<Response::gaussian>(a, p, seen, context));
    else
      SR_TRY(blend_response<Response::beer_lambert>(a, p, seen, context));
  }
  if (!seen) return {};
  return launch_over("visibility_kernel", visibility_kernel<T>, a.C * a.N, context.stream, a,
                     reinterpret_cast<const Quad<T>*>(seen));
}

template <bool ABSGRAD, class T>
Status blend_backward_any(const BlendArgs<T>& a, const BlendGrads<T>& g, Context& context) {
  Prepared<T> p;
  SR_TRY(prepare(a, context, p));
  if (p.tiles == 0) return {};
  if (Response(a.response) == Response::gaussian)
    return blend_backward_response<Response::gaussian, ABSGRAD>(a, g, p, context);
  return blend_backward_response<Response::beer_lambert, ABSGRAD>(a, g, p, context);
}

template <class T>
Status blend_backward(const BlendArgs<T>& a, const BlendGrads<T>& g, Context& context) {
  static_assert(kAbsgradChannels <= kMaxChannels, "one pass: absolute values of parts do not add up");
  return g.absgrad ? blend_backward_any<true>(a, g, context) : blend_backward_any<false>(a, g, context);
}

template Status blend(const BlendArgs<float>&, Context&);
template Status blend(const BlendArgs<double>&, Context&);
template Status blend_backward(const BlendArgs<float>&, const BlendGrads<float>&, Context&);
template Status blend_backward(const BlendArgs<double>&, const BlendGrads<double>&, Context&);

}  // namespace splatrender::cuda
