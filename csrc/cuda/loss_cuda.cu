// Photometric loss of one image and its gradient, in one sweep over its rows.
//
// Colours stay interleaved: a row of the image is 3W numbers, the neighbour of a number is 3 numbers away. A block
// sweeps a band of rows downwards in a strip of columns; a thread is two neighbouring columns of one colour, all the
// way (one for double, which has half the registers). Per row:
//
//   down         the thread keeps the last 11 rows of u = x + y and v = x - y of its columns in registers, and puts the
//                windows along them of u, v, u², v² into shared memory
//   across       the same along the row, from shared memory; then 1 - S of the pixel and its three slopes, which go
//                into shared memory in turn
//   across       the slopes' windows along the row before; the thread keeps those of the last 11 rows in registers
//   down         the slopes' windows along the columns, and with them the gradient 6 rows higher up, whose u and v
//                are those that just left the window
//
// Shared memory has two halves that take turns, so one barrier a row is enough. The loop over rows is unrolled 11
// times: row y is in register y mod 11, and no register moves. Windows along the row of two neighbours share ten of
// their twelve pixels, which halves the reads of shared memory.
//
// So the image is read once and nothing but the gradient is written. The price are threads and rows at the edges whose
// results only serve the neighbours: 5 pixels left and right for each of the two windows, and 10 rows above and below.
// Pixels outside the image are 0, and so are pixels that the mask leaves out.
//
// Strips are of fixed width. How high the bands are depends on the GPU, no result does: a warp leaves its sums, in
// double, at every kSumRows-th row of the image, and one last block adds them in order.
#include "../math/ssim.h"
#include "stages_cuda.h"
#include "warp.h"

namespace splatrender::cuda {

constexpr int kLossThreads = 192, kLossWarps = kLossThreads / kWarp;
constexpr int kTotalLossThreads = 1024;
constexpr int kWindow = 2 * kSsimRadius + 1;
constexpr int kSumRows = 8;  // rows of the image that share a sum; bands are multiples of it
template <class T>
constexpr int kColumns = sizeof(T) == 4 ? 2 : 1;  // of a thread: pixels side by side
template <class T>
constexpr int kLossBlocks = sizeof(T) == 4 ? 2 : 1;  // of a multiprocessor at a time, as registers allow
template <class T>
constexpr int kBlockPixels = kLossThreads / 3 * kColumns<T>;  // pixels of a row that a block reads
template <class T>
constexpr int kStripPixels = kBlockPixels<T> - 4 * kSsimRadius;  // of which it finds the gradient
constexpr int kExtraRows = 4 * kSsimRadius + 1;  // rows that a block goes through beside those of its band

// How the image is cut, and what all blocks share.
template <class T>
struct LossPlan {
  int strips, bands, rows;  // rows of a band
  int counts_size;  // 0 without a mask
  const int64_t* counts;  // [counts_size] pixels that the mask keeps, of which the sum is wanted
  int64_t sums_size;
  double* sums;  // [strips, rows / kSumRows, kLossWarps, 2] = [sums_size, 2] of |x - y| and 1 - S
  T weights[kSsimRadius + 1];  // of the window, relative to the one in its middle
  T scale;  // that makes the weights of the square window add up to 1
};

// Weight of one number: 1 / (3 pixels that the mask keeps), or 0 if there are none. All threads of the block call it.
template <int WARPS, class T>
__device__ __forceinline__ double share_of_number(const LossArgs<T>& a, const LossPlan<T>& plan) {
  int64_t kept = int64_t(a.width) * a.height;
  if (a.mask) kept = block_sum<WARPS>(int64_t(threadIdx.x) < plan.counts_size ? plan.counts[threadIdx.x] : int64_t(0));
  return kept > 0 ? 1.0 / (3.0 * double(kept)) : 0.0;
}

// Windowed means of one number. Aligned, so that a thread reads them with 16 bytes at a time.
template <class T>
struct alignas(16) Means {
  T u, v, uu, vv;
};
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T a, b;
};

// One row in shared memory: pixels of even and of odd columns apart, so that neighbouring threads read neighbouring
// places. The padding is read by the outermost threads, for slopes that no thread uses.
template <class T>
struct SharedRow {
  static constexpr int kPadding = 3, kPlaces = kLossThreads + 2 * kPadding;
  Means<T> means[kColumns<T>][kPlaces];
  Pair<T> constant_sum[kColumns<T>][kPlaces];  // of the slopes
  T difference[kColumns<T>][kPlaces];
};
// The entry of the pixel `distance` pixels to the right of the thread's first one.
template <class T, class X>
__device__ __forceinline__ X& entry(X (&row)[kColumns<T>][SharedRow<T>::kPlaces], int distance) {
  constexpr int kFar = 16;  // a multiple of all kColumns: rounds down for negative distances too
  const int pixel = distance + kFar;
  return row[pixel % kColumns<T>]
            [SharedRow<T>::kPadding + threadIdx.x + 3 * (pixel / kColumns<T> - kFar / kColumns<T>)];
}

// The window of f around 0. It is symmetric: numbers at the same distance are added first. Products are fused
// explicitly, so that a row's place among the 11 unrolled ones cannot matter.
template <class T, class F>
__device__ __forceinline__ T window_of(const LossPlan<T>& plan, const F& f) {
  T sum = f(0);
#pragma unroll
  for (int k = 1; k <= kSsimRadius; ++k) sum = multiply_add(plan.weights[k], f(-k) + f(k), sum);
  return sum;
}
// And that of f².
template <class T, class F>
__device__ __forceinline__ T window_of_squares(const LossPlan<T>& plan, const F& f) {
  T sum = f(0) * f(0);
#pragma unroll
  for (int k = 1; k <= kSsimRadius; ++k)
    sum = multiply_add(plan.weights[k], multiply_add(f(-k), f(-k), f(k) * f(k)), sum);
  return sum;
}

// A byte in a register of T, as long as nobody needs it as a number, and byte / 255, rounded as the division is for
// every byte.
template <class T>
__device__ __forceinline__ T held_byte(uint8_t byte) {
  if constexpr (sizeof(T) == 4)
    return __uint_as_float(byte);
  else
    return __longlong_as_double(byte);
}
template <class T>
__device__ __forceinline__ T part_of_255(T held) {
  constexpr T kInverse = T(1) / T(255);
  T number;
  if constexpr (sizeof(T) == 4)
    number = T(int(__float_as_uint(held)));
  else
    number = T(int(__double_as_longlong(held)));
  const T near = number * kInverse;
  return multiply_add(multiply_add(-near, T(255), number), kInverse, near);
}

// A number of the two images as it comes from memory. It is first used with the next row: nothing waits for it.
template <class T>
struct Fetched {
  T x, other;
  unsigned mask;
};

// A thread's columns, and the row that is fetched next.
template <class T>
struct LossColumns {
  static constexpr int C = kColumns<T>;
  static constexpr unsigned kAll = (1u << C) - 1;
  int pixel;  // the first, of those of the block
  unsigned number;  // number of the pixel in the row; of the last pixel where it is outside
  unsigned in_row;  // bit c: column c is in the image; the second not without the first: strips begin at even pixels
  unsigned kept = 0;  // bit C k + c: row y - k of column c is in the image, and the mask keeps it
  Fetched<T> next[C];

  __device__ __forceinline__ LossColumns(const LossArgs<T>& a, int strip) : in_row(0) {
    pixel = threadIdx.x / 3 * C;
    const int wanted = strip * kStripPixels<T> - 2 * kSsimRadius + pixel;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      in_row |= unsigned(wanted + c >= 0 && wanted + c < a.width) << c;
      next[c] = {T(0), T(0), 1};
    }
    number = 3 * unsigned(in_row ? wanted : a.width - 1) + threadIdx.x % 3;
  }
  // True where some of its pixels are at least so far from the block's edges.
  __device__ __forceinline__ bool has(int margin) const {
    return pixel + C - 1 >= margin && pixel <= kBlockPixels<T> - 1 - margin;
  }
  // True if column c is kept `rows` above the row that was fetched last.
  __device__ __forceinline__ bool is_kept(int c, int rows) const { return (kept & 1u << (C * rows + c)) != 0; }

  // Begins to fetch row y.
  __device__ __forceinline__ void fetch(const LossArgs<T>& a, int y) {
    const bool inside = y >= 0 && y < a.height;
    kept = kept << C | (inside ? in_row : 0);
    if (!inside) return;
    const int64_t row = int64_t(y) * a.width, at = 3 * row + number;
    const T *radiance = a.radiance + at, *photo = a.photo + at;
    const uint8_t *bytes = a.photo_bytes + at, *mask = a.mask + row + number / 3;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      if (c > 0 && !(in_row & 1u << c)) continue;
      next[c].x = radiance[3 * c];
      next[c].other = a.photo ? photo[3 * c] : held_byte<T>(bytes[3 * c]);
      if (a.mask) next[c].mask = mask[c];
    }
  }
  // The fetched numbers of column c: sum and difference of the two images.
  __device__ __forceinline__ Pair<T> fetched(const LossArgs<T>& a, int c) {
    if (a.mask && next[c].mask == 0) kept &= ~(1u << c);
    const T other = a.photo ? next[c].other : part_of_255(next[c].other);
    return {mask_or_zero(is_kept(c, 0), next[c].x + other), mask_or_zero(is_kept(c, 0), next[c].x - other)};
  }
};

// The windows along the row of the means.
template <class T>
__device__ __forceinline__ void means_across(const LossPlan<T>& plan, SharedRow<T>& row,
                                             const Means<T> (&own)[kColumns<T>], Means<T> (&sums)[kColumns<T>]) {
  const auto at = [&](int distance) {
    return distance >= 0 && distance < kColumns<T> ? own[distance] : entry<T>(row.means, distance);
  };
#pragma unroll
  for (int c = 0; c < kColumns<T>; ++c) sums[c] = own[c];
#pragma unroll
  for (int k = 1; k <= kSsimRadius; ++k)
#pragma unroll
    for (int c = 0; c < kColumns<T>; ++c) {
      const Means<T> left = at(c - k), right = at(c + k);
      const T w = plan.weights[k];
      sums[c] = {multiply_add(w, left.u + right.u, sums[c].u), multiply_add(w, left.v + right.v, sums[c].v),
                 multiply_add(w, left.uu + right.uu, sums[c].uu), multiply_add(w, left.vv + right.vv, sums[c].vv)};
    }
}

// The windows along the row of the slopes.
template <class T>
__device__ __forceinline__ void slopes_across(const LossPlan<T>& plan, SharedRow<T>& row,
                                              SsimSlopes<T> (&sums)[kColumns<T>]) {
  const auto at = [&](int distance) {
    const Pair<T> both = entry<T>(row.constant_sum, distance);
    return SsimSlopes<T>{both.a, both.b, entry<T>(row.difference, distance)};
  };
#pragma unroll
  for (int c = 0; c < kColumns<T>; ++c) sums[c] = at(c);
#pragma unroll
  for (int k = 1; k <= kSsimRadius; ++k)
#pragma unroll
    for (int c = 0; c < kColumns<T>; ++c) {
      const SsimSlopes<T> left = at(c - k), right = at(c + k);
      const T w = plan.weights[k];
      sums[c] = {multiply_add(w, left.constant + right.constant, sums[c].constant),
                 multiply_add(w, left.sum + right.sum, sums[c].sum),
                 multiply_add(w, left.difference + right.difference, sums[c].difference)};
    }
}

// State of a thread for its columns on the way down. Rows are in rings of 11: the newest, `bottom`, is at `phase`, and
// with the loop unrolled every place is a register.
template <class T>
struct LossSweep {
  static constexpr int C = kColumns<T>;
  LossColumns<T> columns;
  T by_difference, by_similarity;  // what |v| and 1 - S of a number count
  T u[C][kWindow] = {}, v[C][kWindow] = {};
  T slope[C][kWindow] = {};  // of 1 - S by the number, as far as windows were added
  T u_z[C] = {}, v_z[C] = {};  // of the row that just left the ring
  Means<T> means[C] = {};  // windows down of row y = bottom - 5
  T unlike = 0, apart = 0;  // sums of 1 - S and of |v|

  static __device__ __forceinline__ int place(int phase, int rows_up) { return (phase + kWindow - rows_up) % kWindow; }

  __device__ __forceinline__ void push_row(const LossArgs<T>& a, int phase) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      u_z[c] = u[c][phase], v_z[c] = v[c][phase];
      const Pair<T> uv = columns.fetched(a, c);
      u[c][phase] = uv.a, v[c][phase] = uv.b;
    }
  }
  __device__ __forceinline__ void put_means(const LossPlan<T>& plan, int phase, SharedRow<T>& row) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const auto u_at = [&](int k) { return u[c][place(phase, kSsimRadius - k)]; };
      const auto v_at = [&](int k) { return v[c][place(phase, kSsimRadius - k)]; };
      means[c] = {window_of(plan, u_at), window_of(plan, v_at), window_of_squares(plan, u_at),
                  window_of_squares(plan, v_at)};
      entry<T>(row.means, c) = means[c];
    }
  }
  // 1 - S and its slopes of row y; `counts`: into the sums.
  __device__ __forceinline__ void put_slopes(const LossPlan<T>& plan, int phase, SharedRow<T>& row, bool counts) {
    Means<T> m[C];
    means_across(plan, row, means, m);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const bool kept = columns.is_kept(c, kSsimRadius + 1);
      SsimSlopes<T> slopes;
      const T s = plan.scale, d = dissimilarity(SsimMeans<T>{s * m[c].u, s * m[c].v, s * m[c].uu, s * m[c].vv}, slopes);
      entry<T>(row.constant_sum, c) = {mask_or_zero(kept, slopes.constant), mask_or_zero(kept, slopes.sum)};
      entry<T>(row.difference, c) = mask_or_zero(kept, slopes.difference);
      unlike += mask_or_zero(kept && counts, d);
      apart += mask_or_zero(counts, magnitude(v[c][place(phase, kSsimRadius)]));
    }
  }
  // The warp's sums since the last time, as those of the rows that end with y.
  __device__ __forceinline__ void leave_sums(const LossArgs<T>& a, const LossPlan<T>& plan, int strip, int y) {
    double sums[2] = {double(apart), double(unlike)};
    const double total = warp_sums<2>(sums);
    const int64_t groups = (a.height + kSumRows - 1) / kSumRows, warp = threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp, half = kWarp / 2;
    if (lane % half == 0) plan.sums[2 * ((strip * groups + y / kSumRows) * kLossWarps + warp) + lane / half] = total;
    apart = unlike = 0;
  }
  // Adds the slopes of row y - 1 to all rows in whose windows they are; the uppermost one, z, is complete then.
  __device__ __forceinline__ void add_slopes(const LossArgs<T>& a, const LossPlan<T>& plan, int phase,
                                             SharedRow<T>& row, int z, bool z_wanted) {
    SsimSlopes<T> across[C];
    slopes_across(plan, row, across);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const auto of_row = [&](T u_there, T v_there) {
        return multiply_add(v_there, across[c].difference, multiply_add(u_there, across[c].sum, across[c].constant));
      };
      const T total = multiply_add(plan.weights[kSsimRadius], of_row(u_z[c], v_z[c]), slope[c][phase]);
#pragma unroll
      for (int up = 1; up < kWindow; ++up) {
        const int at = place(phase, up), middle = kSsimRadius + 1, distance = up < middle ? middle - up : up - middle;
        const T term = of_row(u[c][at], v[c][at]);
        slope[c][at] = up == 1        ? plan.weights[distance] * term  // its first
                       : distance > 0 ? multiply_add(plan.weights[distance], term, slope[c][at])
                                      : slope[c][at] + term;
      }
      if (!z_wanted || !(columns.in_row & 1u << c)) continue;
      const T sign = v_z[c] > T(0) ? by_difference : v_z[c] < T(0) ? -by_difference : T(0);
      a.grad[3 * int64_t(z) * a.width + columns.number + int64_t(3 * c)] =
          mask_or_zero(columns.is_kept(c, kWindow + 1), multiply_add(by_similarity, total, sign));
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kLossThreads, kLossBlocks<T>) loss_kernel(LossArgs<T> a, LossPlan<T> plan) {
  __shared__ SharedRow<T> rows[2];
  const double share = share_of_number<kLossWarps>(a, plan);
  const int strip = blockIdx.x, begin = blockIdx.y * plan.rows, reach = a.grad ? kSsimRadius : 0;
  const int end = begin + plan.rows < a.height ? begin + plan.rows : a.height;
  LossSweep<T> sweep{LossColumns<T>(a, strip), T((1 - a.ssim_weight) * share), T(a.ssim_weight * share) * plan.scale};
  const bool slopes_wanted = sweep.columns.has(kSsimRadius), own = sweep.columns.has(2 * kSsimRadius);

  sweep.columns.fetch(a, begin - 2 * kSsimRadius);
  for (int top = begin - 2 * kSsimRadius; top <= end + reach + kSsimRadius; top += kWindow) {
#pragma unroll
    for (int phase = 0; phase < kWindow; ++phase) {
      const int bottom = top + phase, y = bottom - kSsimRadius, z = bottom - kWindow;
      const bool means_wanted = y >= begin - reach && y < end + reach, in_band = y >= begin && y < end;
      SharedRow<T>&row = rows[bottom & 1], &before = rows[~bottom & 1];
      sweep.push_row(a, phase);
      sweep.columns.fetch(a, bottom + 1);
      if (means_wanted) sweep.put_means(plan, phase, row);
      __syncthreads();
      if (means_wanted && slopes_wanted) sweep.put_slopes(plan, phase, row, in_band && own);
      if (in_band && ((y + 1) % kSumRows == 0 || y + 1 == end)) sweep.leave_sums(a, plan, strip, y);
      if (a.grad && own && y > begin - reach && y <= end + reach)
        sweep.add_slopes(a, plan, phase, before, z, z >= begin && z < end);
    }
  }
}

// How many pixels the mask keeps, of those that this block goes through.
__global__ void __launch_bounds__(kLossThreads) loss_mask_kernel(const uint8_t* mask, int64_t pixels, int64_t* counts) {
  int64_t kept = 0;
  for (int64_t i = item(); i < pixels; i += int64_t(gridDim.x) * kLossThreads) kept += mask[i] != 0;
  kept = block_sum<kLossWarps>(kept);
  if (threadIdx.x == 0) counts[blockIdx.x] = kept;
}

// One block: the sums of all warps of loss_kernel, in order.
template <class T>
__global__ void __launch_bounds__(kTotalLossThreads) loss_total_kernel(LossArgs<T> a, LossPlan<T> plan) {
  constexpr int kWarps = kTotalLossThreads / kWarp;
  const double share = share_of_number<kWarps>(a, plan);
  double apart = 0, unlike = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < plan.sums_size; i += kTotalLossThreads)
    apart += plan.sums[2 * i], unlike += plan.sums[2 * i + 1];
  apart = share * block_sum<kWarps>(apart);
  unlike = share * block_sum<kWarps>(unlike);
  if (threadIdx.x > 0) return;
  *a.loss = T((1 - a.ssim_weight) * apart + a.ssim_weight * unlike);
  *a.l1 = T(apart), *a.ssim = T(1 - unlike);
}

// `places`: blocks that the GPU runs at a time. Of one to four times that many blocks, those that finish first: lower
// bands fill the GPU better, but go through kExtraRows each.
template <class T>
LossPlan<T> plan_of(const LossArgs<T>& a, int64_t places) {
  LossPlan<T> plan{};
  plan.strips = int(divide_up(a.width, kStripPixels<T>));
  int64_t least = 0;
  for (int64_t waves = 1; waves <= 4; ++waves) {
    const int64_t bands = waves * places / plan.strips;
    const int64_t rows = kSumRows * divide_up(divide_up(a.height, bands > 0 ? bands : 1), kSumRows);
    const int64_t needed = divide_up(a.height, rows);
    const int64_t time = divide_up(needed * plan.strips, places) * (rows + kExtraRows);
    if (waves > 1 && time >= least) continue;
    least = time, plan.rows = int(rows), plan.bands = int(needed);
  }
  plan.sums_size = plan.strips * divide_up(a.height, kSumRows) * kLossWarps;
  double total = 0;
  for (int k = 0; k <= kSsimRadius; ++k) {
    const double weight = std::exp(-k * k / (2 * kSsimSigma * kSsimSigma));
    plan.weights[k] = T(weight);
    total += k ? 2 * weight : weight;
  }
  plan.scale = T(1 / (total * total));
  return plan;
}

template <class T>
Status loss(const LossArgs<T>& a, Context& context) {
  int multiprocessors = 0;
  SR_TRY(count_multiprocessors(multiprocessors));
  LossPlan<T> plan = plan_of(a, int64_t(multiprocessors) * kLossBlocks<T>);
  const int64_t pixels = int64_t(a.width) * a.height;
  plan.sums = context.scratch<double>(2 * plan.sums_size);
  if (a.mask) {
    const int64_t wanted = divide_up(pixels, 16 * kLossThreads);
    plan.counts_size = int(wanted < kLossThreads ? wanted : kLossThreads);
    int64_t* counts = context.scratch<int64_t>(plan.counts_size);
    plan.counts = counts;
    SR_TRY(launch("loss_mask_kernel", loss_mask_kernel, dim3(unsigned(plan.counts_size)), dim3(kLossThreads),
                  context.stream, a.mask, pixels, counts));
  }
  SR_TRY(launch("loss_kernel", loss_kernel<T>, dim3(unsigned(plan.strips), unsigned(plan.bands)), dim3(kLossThreads),
                context.stream, a, plan));
  return launch("loss_total_kernel", loss_total_kernel<T>, dim3(1), dim3(kTotalLossThreads), context.stream, a, plan);
}

template Status loss(const LossArgs<float>&, Context&);
template Status loss(const LossArgs<double>&, Context&);

}  // namespace splatrender::cuda
