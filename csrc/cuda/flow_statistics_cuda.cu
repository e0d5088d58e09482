// Changes of the error by births and deaths; the formulas are in math/flow_statistics.h, the layout in blend_tile.cuh.
//
// A block takes a tile, a warp a quadrant, a lane two pixels, whose state stays in registers: first the list front to
// back, as in blending, to the residual; then back to front, where a splat sums one number over the pixels and a probe
// some twenty. The warps' sums meet in shared memory and go to the pair's slot, and one thread per row adds its slots
// in their order: no atomics, the same bits every time.
#include "../math/flow_statistics.h"
#include "blend_tile.cuh"
#include "stages_cuda.h"

namespace splatrender::cuda {

constexpr int kFlowBatch = 16;   // entries that are fetched at once
constexpr int kFlowSums = kMassesMost * kQuadratic;

// Places of the sums of a pair: one number for a splat, `stride` for a probe.
template <class T>
struct FlowSlots {
  T *removals, *insertions;
  uint8_t* written;
  int stride;
};

template <class T>
struct FlowEntry {
  Quad<T> head, tail;  // x, y, xx, xy; yy, log2_peak, color 0, color 1
  T blue;
  unsigned reach;  // quadrants met
  bool probe;
};

template <class T>
__device__ __forceinline__ FlowEntry<T> flow_entry(const FlowArgs<T>& f, const Footprint<T>* footprints,
                                                   const Place<T>& at, int k) {
  const auto& a = f.list;
  const int64_t id = id_at(a, k);
  const Footprint<T> print = footprints[id];
  const T* color = a.emission + id * kPhotoChannels;
  return {print.head,
          {print.tail.x, print.tail.y, color[0], color[1]},
          color[2],
          quadrants_met(print, at.x0, at.y0),
          id >= (at.camera + 1) * a.N - f.probes};
}

// Two pixels of a lane.
template <class T>
struct FlowPixels {
  T Tr[kSlots], behind[kSlots][kPhotoChannels], residual[kSlots][kPhotoChannels];
  int last[kSlots];
};

// Changes by the removal of a splat at the lane's pixels; moves their state in front of it.
template <Response R, class T>
__device__ __forceinline__ T removal_at(const FlowEntry<T>& entry, const Column<T>& column, int before,
                                        FlowPixels<T>& p) {
  const T color[kPhotoChannels] = {entry.tail.z, entry.tail.w, entry.blue};
  T total(0);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const T e = column.log2_response(4 * s);
    const bool ok = p.last[s] > before && e >= T(kLog2Cutoff);
    const Opacity<T> o = opacity_of<R>(power_of_two(e));
    const T inverse = reciprocal(o.passes), front = p.Tr[s] * inverse, odds = o.alpha * inverse;
    const T w = mask_or_zero(ok, o.alpha * front);
    T change(0);
#pragma unroll
    for (int c = 0; c < kPhotoChannels; ++c) {
      change += removal_change(odds, p.Tr[s], color[c], p.behind[s][c], p.residual[s][c]);
      p.behind[s][c] = multiply_add(w, color[c], p.behind[s][c]);
    }
    total += mask_or_zero(ok, change);
    p.Tr[s] = select(ok, front, p.Tr[s]);
  }
  return total;
}

// Changes by the insertion of a probe at each mass: sums over the quadrant, each written by one lane.
template <Response R, class T>
__device__ __forceinline__ void insertion_at(const FlowArgs<T>& f, const FlowEntry<T>& entry, const Column<T>& column,
                                             int before, int lane, const FlowPixels<T>& p, T* sums) {
  constexpr int kPadded = 8;  // kQuadratic numbers, padded to a power of two
  const T color[kPhotoChannels] = {entry.tail.z, entry.tail.w, entry.blue};
  T response[kSlots], exponent[kSlots];
  InsertionTerms<T> terms[kSlots];
  bool ok[kSlots];
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    exponent[s] = column.log2_response(4 * s);
    ok[s] = p.last[s] > before && exponent[s] >= T(kLog2Cutoff);
    response[s] = power_of_two(exponent[s]);
    terms[s] = insertion_terms(p.Tr[s], color, p.behind[s], p.residual[s]);
  }
  for (int m = 0; m < f.masses; ++m) {
    const T level = f.levels[m], cutoff = T(kLog2Cutoff) - log_two(level);  // a fainter probe ends nearer to its centre
    T total[kPadded] = {};
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const T alpha = mask_or_zero(ok[s] && exponent[s] >= cutoff, opacity_of<R>(level * response[s]).alpha);
      add_insertion(terms[s], p.Tr[s], alpha, total);
    }
    const T sum = warp_sums<kPadded>(total);
    constexpr int kEach = kWarp / kPadded;
    if (lane % kEach == 0 && lane / kEach < kQuadratic) sums[m * kQuadratic + lane / kEach] = sum;
  }
}

// A tile as a block walks it.
template <class T>
struct FlowTile {
  const FlowArgs<T>& f;
  const Footprint<T>* footprints;
  const Place<T>& at;
  FlowEntry<T> (&entries)[kTileThreads];
  FlowPixels<T> p{};
  T least[kSlots];  // smallest 1 - α of the pixel: it is full once it would be so without any one of its splats
  bool kept[kSlots];

  __device__ __forceinline__ bool open(int s) const { return p.Tr[s] > T(kTransmittanceMin) * least[s]; }
};

// Clears the pixels: nothing is blended where nothing passes.
template <class T>
__device__ __forceinline__ void start(FlowTile<T>& tile) {
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    tile.kept[s] = tile.at.inside[s] && (!tile.f.masks || tile.f.masks[tile.at.pixel[s]] != 0);
    tile.p.Tr[s] = tile.least[s] = tile.kept[s] ? T(1) : T(0);
    tile.p.last[s] = 0;
#pragma unroll
    for (int c = 0; c < kPhotoChannels; ++c) tile.p.behind[s][c] = T(0);
  }
}

// Front to back: `behind` collects the radiance.
template <Response R, class T>
__device__ __forceinline__ void walk_forward(FlowTile<T>& tile) {
  const Place<T>& at = tile.at;
  FlowPixels<T>& p = tile.p;
  for (int k0 = at.begin; k0 < at.end; k0 += kTileThreads) {
    if (!__syncthreads_or(tile.open(0) || tile.open(1))) break;
    const int mine = k0 + int(threadIdx.x);
    if (mine < at.end) tile.entries[threadIdx.x] = flow_entry(tile.f, tile.footprints, at, mine);
    __syncthreads();
    const int count = min(kTileThreads, at.end - k0);
    for (int j = 0; j < count; ++j) {
      if (tile.entries[j].probe || !(tile.entries[j].reach >> at.warp & 1u)) continue;
      const FlowEntry<T> entry = tile.entries[j];
      const T color[kPhotoChannels] = {entry.tail.z, entry.tail.w, entry.blue};
      const Column<T> column(entry.head, entry.tail.x, entry.tail.y, at.px, at.py);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        const T e = column.log2_response(4 * s);
        const bool clear = tile.open(s), ok = clear && e >= T(kLog2Cutoff);
        const Opacity<T> o = opacity_of<R>(power_of_two(e));
        const T w = mask_or_zero(ok, o.alpha * p.Tr[s]);
        p.last[s] = clear ? k0 + j + 1 - at.begin : p.last[s];
        p.Tr[s] = select(ok, o.passes * p.Tr[s], p.Tr[s]);
        tile.least[s] = select(ok, smin(o.passes, tile.least[s]), tile.least[s]);
#pragma unroll
        for (int c = 0; c < kPhotoChannels; ++c) p.behind[s][c] = multiply_add(w, color[c], p.behind[s][c]);
      }
    }
  }
  __syncthreads();
}

// From the radiance to the residual, and to the light behind the last entry. Returns Σ|r|² of the lane's pixels and
// raises `furthest` to the last entry that any pixel has reached.
template <class T>
__device__ __forceinline__ double turn(FlowTile<T>& tile, int* furthest) {
  const Place<T>& at = tile.at;
  const FlowArgs<T>& f = tile.f;
  FlowPixels<T>& p = tile.p;
  double error = 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if (tile.kept[s] && tile.open(s)) p.last[s] = at.end - at.begin;
    if (tile.kept[s]) atomicMax(furthest, p.last[s]);
#pragma unroll
    for (int c = 0; c < kPhotoChannels; ++c) {
      p.residual[s][c] = T(0);
      if (!tile.kept[s]) continue;
      const int64_t i = kPhotoChannels * at.pixel[s] + c;
      const T beyond = p.Tr[s] * f.list.backgrounds[at.camera * kPhotoChannels + c];
      const T photo = f.photos ? f.photos[i] : T(f.photo_bytes[i]) * T(1.0 / 255);
      p.residual[s][c] = p.behind[s][c] + beyond - photo;
      p.behind[s][c] = beyond;
      error += double(p.residual[s][c]) * double(p.residual[s][c]);
    }
  }
  return error;
}

// Adds the warps' sums of a batch in order; each goes to its pair's slot. Entry e is list entry last - e.
template <class T>
__device__ __forceinline__ void store_sums(const FlowTile<T>& tile, const FlowSlots<T>& slots,
                                           const T (&sums)[kWarps][kFlowBatch][kFlowSums], int last, int count) {
  for (int v = threadIdx.x; v < count * slots.stride; v += kTileThreads) {
    const int e = v / slots.stride, q = v % slots.stride;
    const unsigned reach = tile.entries[e].reach;
    const bool probe = tile.entries[e].probe;
    if (!reach || (!probe && q > 0)) continue;
    T total(0);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      if (reach >> w & 1u) total += sums[w][e][q];
    const int64_t slot = slot_at(tile.f.list, last - e);
    (probe ? slots.insertions[slot * slots.stride + q] : slots.removals[slot]) = total;
    if (q == 0) slots.written[slot] = 1;
  }
}

template <Response R, class T>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 4 : 6)
    flow_statistics_kernel(FlowArgs<T> f, const Footprint<T>* footprints, const int32_t* order, FlowSlots<T> slots) {
  __shared__ FlowEntry<T> entries[kTileThreads];  // walking forward; the first kFlowBatch walking back
  __shared__ T sums[kWarps][kFlowBatch][kFlowSums];
  __shared__ int furthest;
  const Place<T> at(f.list, order);
  const int t = threadIdx.x;
  FlowTile<T> tile{f, footprints, at, entries};
  start(tile);
  if (t == 0) furthest = 0;
  walk_forward<R>(tile);
  const double error = block_sum<kWarps>(turn(tile, &furthest));
  if (t == 0) f.partial[at.tile] = 0.5 * error;

  // Back to front.
  for (int k1 = at.begin + furthest; k1 > at.begin; k1 -= kFlowBatch) {
    const int count = min(kFlowBatch, k1 - at.begin);
    if (t < count) entries[t] = flow_entry(f, footprints, at, k1 - 1 - t);
    __syncthreads();
    for (int e = 0; e < count; ++e) {
      if (!(entries[e].reach >> at.warp & 1u)) continue;
      const FlowEntry<T> entry = entries[e];
      const Column<T> column(entry.head, entry.tail.x, entry.tail.y, at.px, at.py);
      const int before = k1 - 1 - e - at.begin;
      if (entry.probe) {
        insertion_at<R>(f, entry, column, before, at.lane, tile.p, sums[at.warp][e]);
      } else {
        const T sum = warp_sum(removal_at<R>(entry, column, before, tile.p));
        if (at.lane == 0) sums[at.warp][e][0] = sum;
      }
    }
    __syncthreads();
    store_sums(tile, slots, sums, k1 - 1, count);
    __syncthreads();
  }
}

// Adds the slots of a row in their order. One thread per row and camera.
template <class T>
__global__ void __launch_bounds__(256) flow_gather_kernel(FlowArgs<T> f, FlowSlots<T> slots) {
  const auto& a = f.list;
  const int64_t i = item();
  if (i >= a.C * a.N) return;
  const int64_t splats = a.N - f.probes, camera = i / a.N, n = i % a.N;
  const int first = max(a.splat_offsets[i], 0), last = min(a.splat_offsets[i + 1], int(a.P));
  if (n < splats) {
    T sum(0);
    for (int k = first; k < last; ++k)
      if (slots.written[k]) sum += slots.removals[k];
    f.removal[camera * splats + n] = sum;
    return;
  }
  T* insertion = f.insertion + (camera * f.probes + n - splats) * slots.stride;
  for (int q = 0; q < slots.stride; ++q) {
    T sum(0);
    for (int k = first; k < last; ++k)
      if (slots.written[k]) sum += slots.insertions[int64_t(k) * slots.stride + q];
    insertion[q] = sum;
  }
}

// The error of each camera from those of its tiles, in order. One block per camera.
template <class T>
__global__ void __launch_bounds__(256) flow_error_kernel(const double* partial, int64_t tiles, T* error) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < tiles; i += blockDim.x) sum += partial[blockIdx.x * tiles + i];
  sum = block_sum<256 / kWarp>(sum);
  if (threadIdx.x == 0) error[blockIdx.x] = T(sum);
}

template <class T>
Status flow_statistics(const FlowArgs<T>& f, Context& context) {
  const auto& a = f.list;
  Prepared<T> p;
  SR_TRY(prepare(a, context, p));
  FlowSlots<T> slots{};
  slots.stride = f.masses * kQuadratic;
  slots.removals = context.scratch<T>(a.P);
  slots.insertions = context.scratch<T>(f.probes ? a.P * slots.stride : 1);
  slots.written = context.scratch<uint8_t>(a.P);
  SR_TRY(fill_zero(slots.written, a.P, context.stream));
  if (p.tiles > 0) {
    const auto kernel = Response(a.response) == Response::gaussian ? flow_statistics_kernel<Response::gaussian, T>
                                                                   : flow_statistics_kernel<Response::beer_lambert, T>;
    SR_TRY(launch("flow_statistics_kernel", kernel, dim3(unsigned(p.tiles)), dim3(kTileThreads), context.stream, f,
                  p.footprints, p.order, slots));
    SR_TRY(launch("flow_error_kernel", flow_error_kernel<T>, dim3(unsigned(a.C)), dim3(256), context.stream,
                  static_cast<const double*>(f.partial), p.tiles / a.C, f.error));
  }
  return launch_over("flow_gather_kernel", flow_gather_kernel<T>, a.C * a.N, context.stream, f, slots);
}

template Status flow_statistics(const FlowArgs<float>&, Context&);
template Status flow_statistics(const FlowArgs<double>&, Context&);

}  // namespace splatrender::cuda
