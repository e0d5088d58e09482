// Blending front to back, forward and backward. See blend_tile.cuh for the layout.
//
// Forward. 128 entries of the tile's list at a time: each thread fetches one splat and tests its ellipse exactly
// against the four quadrants; then each warp walks the entries that meet its own. Which 4x4 blocks a splat changed is
// voted on by the warp and kept as `hits`; how far down its list a pixel got until it was opaque, as `last`.
//
// Backward: see blend_backward.cuh.
//
// More than four channels are blended in passes of four. Backward is linear in the gradient of the image, so the
// passes simply add up.
#include <type_traits>

#include "blend_backward.cuh"
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

// The two pixels of a lane.
template <int D, class T>
struct ForwardPixels {
  T Tr[kSlots], C[kSlots][D];
  int last[kSlots];

  // Nothing is blended where nothing passes.
  __device__ __forceinline__ explicit ForwardPixels(const Place<T>& at) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      Tr[s] = at.inside[s] ? T(1) : T(0);
      last[s] = 0;
#pragma unroll
      for (int c = 0; c < D; ++c) C[s][c] = T(0);
    }
  }
  __device__ __forceinline__ bool open() const { return Tr[0] > T(kTransmittanceMin) || Tr[1] > T(kTransmittanceMin); }
};

// A stretch of the list in shared memory.
template <class T>
struct ForwardStretch {
  Quad<T> (&heads)[kStretch];  // x, y, xx, xy
  Quad<T> (&tails)[kStretch];  // yy, log2_peak, color 0, color 1
  T (&colors)[kStretch][2];  // color 2, color 3
  unsigned (&reach)[kStretch];  // quadrants met
  unsigned (&hits)[kStretch];  // blocks changed
};

// Each thread fetches its entry k of the list.
template <int D, class T>
__device__ __forceinline__ void fetch_entry(const BlendArgs<T>& a, const Footprint<T>* footprints, const Place<T>& at,
                                            int first_channel, int k, const ForwardStretch<T>& stretch) {
  const int t = threadIdx.x;
  stretch.hits[t] = 0;
  stretch.reach[t] = 0;
  if (k >= at.end) return;
  const int64_t id = id_at(a, k);
  const Footprint<T> f = footprints[id];
  T color[kMaxChannels];
  load_channels<D>(a.emission + id * a.D, a.D, first_channel, color);
  stretch.heads[t] = f.head;
  stretch.tails[t] = {f.tail.x, f.tail.y, color[0], D > 1 ? color[1] : T(0)};
  if (D > 2) stretch.colors[t][0] = color[2];
  if (D > 3) stretch.colors[t][1] = color[3];
  stretch.reach[t] = quadrants_met(f, at.x0, at.y0);
}

// A warp's votes on the splat of this lane's number, and what it contributes to the quadrant.
template <class T>
struct Votes {
  unsigned upper, lower;
  T sum;
};

// Blends entries j0 .. j0 + 31 of a stretch that begins at list entry k0 into the warp's quadrant.
template <int D, Response R, bool VISIBILITY, class T>
__device__ __forceinline__ Votes<T> blend_entries(const Place<T>& at, const ForwardStretch<T>& stretch, int k0, int j0,
                                                  ForwardPixels<D, T>& p) {
  unsigned upper = 0, lower = 0;
  T sum = T(0);
  unsigned todo = __ballot_sync(kAllLanes, stretch.reach[j0 + at.lane] >> at.warp & 1u);
  while (todo) {
    const int j = __ffs(int(todo)) - 1;
    todo &= todo - 1;
    const Quad<T> head = stretch.heads[j0 + j], tail = stretch.tails[j0 + j];
    T color[kMaxChannels] = {tail.z, tail.w};
    if (D > 2) color[2] = stretch.colors[j0 + j][0];
    if (D > 3) color[3] = stretch.colors[j0 + j][1];
    const Column<T> column(head, tail.x, tail.y, at.px, at.py);
    unsigned vote[kSlots];
    T light = T(0);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const T e = column.log2_response(4 * s);
      const bool clear = p.Tr[s] > T(kTransmittanceMin), ok = clear && e >= T(kLog2Cutoff);
      const Opacity<T> o = opacity_of<R>(power_of_two(e));
      const T w = mask_or_zero(ok, o.alpha * p.Tr[s]);
      p.last[s] = clear ? k0 + j0 + j + 1 - at.begin : p.last[s];
      p.Tr[s] = select(ok, o.passes * p.Tr[s], p.Tr[s]);
#pragma unroll
      for (int c = 0; c < D; ++c) p.C[s][c] = multiply_add(w, color[c], p.C[s][c]);
      vote[s] = __ballot_sync(kAllLanes, ok);
      if (VISIBILITY) light += w;
    }
    if (VISIBILITY) light = warp_sum(light);
    if (at.lane == j) upper = vote[0], lower = vote[1], sum = light;
  }
  return {upper, lower, sum};
}

template <int D, class T>
__device__ __forceinline__ void write_pixels(const BlendArgs<T>& a, const Place<T>& at, int first_channel,
                                             const ForwardPixels<D, T>& p) {
  T background[kMaxChannels];
  load_channels<D>(a.backgrounds + at.camera * a.D, a.D, first_channel, background);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if (!at.inside[s]) continue;
    const int64_t pixel = at.pixel[s];
    if (first_channel == 0) {
      a.transmittance[pixel] = p.Tr[s];
      a.last[pixel] = p.Tr[s] > T(kTransmittanceMin) ? at.end - at.begin : p.last[s];
    }
#pragma unroll
    for (int c = 0; c < D; ++c)
      if (first_channel + c < a.D) a.radiance[pixel * a.D + first_channel + c] = p.C[s][c] + p.Tr[s] * background[c];
  }
}

template <int D, Response R, bool VISIBILITY, class T>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 5 : 10)
    blend_kernel(BlendArgs<T> a, const Footprint<T>* footprints, const int32_t* order, T* seen, int first_channel) {
  __shared__ Quad<T> heads[kStretch], tails[kStretch];
  __shared__ T colors[kStretch][2];
  __shared__ unsigned reach[kStretch], hits[kStretch];
  const ForwardStretch<T> stretch{heads, tails, colors, reach, hits};
  const Place<T> at(a, order);
  const int t = threadIdx.x;
  ForwardPixels<D, T> p(at);
  hits[t] = 0;

  int k0 = at.begin;
  for (; k0 < at.end; k0 += kStretch) {
    if (!__syncthreads_or(p.open())) break;
    if (first_channel == 0 && k0 > at.begin) a.hits[k0 - kStretch + t] = int16_t(hits[t]);
    fetch_entry<D>(a, footprints, at, first_channel, k0 + t, stretch);
    __syncthreads();
    for (int j0 = 0; j0 < kStretch && k0 + j0 < at.end; j0 += kWarp) {
      if (!__any_sync(kAllLanes, p.open())) break;
      const Votes<T> votes = blend_entries<D, R, VISIBILITY>(at, stretch, k0, j0, p);
      const unsigned hit = blocks_hit(votes.upper, votes.lower);
      if (hit) atomicOr(&hits[j0 + at.lane], hit << at.hit_shift());
      if (VISIBILITY && hit) seen[slot_at(a, k0 + j0 + at.lane) * kWarps + at.warp] = votes.sum;
    }
  }
  __syncthreads();
  if (first_channel == 0) {  // the last stretch, and what is behind an opaque tile
    const int done = k0 > at.begin ? k0 - kStretch : k0;
    for (int k = done + t; k < at.end; k += kTileThreads) a.hits[k] = k < k0 ? int16_t(hits[t]) : int16_t(0);
  }
  write_pixels(a, at, first_channel, p);
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

template <int D, Response R, bool ABSGRAD, class T>
__global__ void __launch_bounds__(kTileThreads, kBackwardBlocks<D, T>)
    blend_backward_kernel(BlendArgs<T> a, BlendGrads<T> g, const Footprint<T>* footprints, const int32_t* order,
                          Quad<T>* slots, uint8_t* written, int first_channel) {
  __shared__ Quad<T> heads[kBatch], tails[kBatch];
  __shared__ T colors[kBatch][kMaxChannels];
  __shared__ unsigned hits[kBatch];
  __shared__ PixelTerm<T> terms[kWarps][kChunk<T>][kTerms<T>];
  __shared__ Quad<T> sums[kWarps][kBatch][kRow<D, ABSGRAD>];
  __shared__ Quad<T> pixel_grads[kWarps][kQuadrantPixels];
  __shared__ int furthest;
  const BackwardBatch<D, ABSGRAD, T> batch{heads, tails, colors, hits, terms, sums, pixel_grads};
  const Place<T> at(a, order);
  if (threadIdx.x == 0) furthest = 0;
  __syncthreads();
  BackwardPixels<T> p;
  read_pixels<D>(a, g, at, first_channel, p, pixel_grads[at.warp], &furthest);
  __syncthreads();

  for (int k1 = at.begin + furthest; k1 > at.begin; k1 -= kBatch) {
    fetch_batch(a, footprints, at, first_channel, k1, batch);
    __syncthreads();
    unsigned todo = __ballot_sync(kAllLanes, hits[at.lane] >> at.hit_shift() & kQuadrantHits);
    while (todo) {
      int mine;
      const int n = pixel_terms<R>(at, batch, k1, p, todo, mine);
      __syncwarp();
      T sum[4 * kRow<D, ABSGRAD>];
      sum_share(at, batch, mine, sum);
      add_shares(at, batch, mine, n, sum);
      __syncwarp();  // the terms are read before the next chunk overwrites them
    }
    __syncthreads();
    store_batch(a, batch, k1, slots, written);
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
