// Photometric loss of one image and its gradient, in one sweep over its rows.
//
// Colours stay interleaved: a row of the image is 3W numbers, the neighbour of a number is 3 numbers away. A block
// sweeps a band of rows downwards in a strip of columns; a thread is one column of numbers all the way. Per row:
//
//   down         the thread keeps the last 11 rows of u = x + y and v = x - y of its column in registers, and puts the
//                windows along it of u, v, u², v² into shared memory
//   across       the same along the row, from shared memory; then 1 - S of the pixel and its three slopes, which go
//                into shared memory in turn
//   across       the slopes' windows along the row; the thread keeps those of the last 11 rows in registers
//   down         the slopes' windows along the column, and with them the gradient of the row 5 higher up, whose u and v
//                are the oldest that are kept
//
// So the image is read once and nothing but the gradient is written. The price are threads and rows at the edges whose
// results only serve the neighbours: 15 columns left and right for each of the two windows, and 10 rows above and
// below. Pixels outside the image are 0, and so are pixels that the mask leaves out. Every block leaves its two sums,
// in double; one last block adds them in order. How the image is cut depends on its size alone.
#include "../math/ssim.h"
#include "stages_cuda.h"
#include "warp.h"

namespace splatrender::cuda {

constexpr int kLossThreads = 256, kLossWarps = kLossThreads / kWarp;
constexpr int kReach = 3 * kSsimRadius;  // numbers that a window reaches to the left and to the right
constexpr int kStripNumbers = kLossThreads - 4 * kReach;  // numbers of a row whose gradient a block finds
constexpr int kWindow = 2 * kSsimRadius + 1;

// How the image is cut, and what all blocks share.
template <class T>
struct LossPlan {
  int strips, bands, rows;  // rows of a band
  int counts_size;  // 0 without a mask
  const int64_t* counts;  // [counts_size] pixels that the mask keeps, of which the sum is wanted
  double* sums;  // [bands,strips,2] of |x - y| and 1 - S
  T weights[kSsimRadius + 1];  // of the window, relative to the one in its middle
  double total;  // their sum over the window
};

// What one number counts: 1 / (3 pixels that the mask keeps), or 0 if there are none. All threads of the block call it.
template <class T>
__device__ __forceinline__ double share_of_number(const LossArgs<T>& a, const LossPlan<T>& plan) {
  int64_t kept = int64_t(a.width) * a.height;
  if (a.mask)
    kept = block_sum<kLossWarps>(int64_t(threadIdx.x) < plan.counts_size ? plan.counts[threadIdx.x] : int64_t(0));
  return kept > 0 ? 1.0 / (3.0 * double(kept)) : 0.0;
}

// Moves the rows up by one, for a new one at the end.
template <class T>
__device__ __forceinline__ void push(T (&rows)[kWindow], T row) {
#pragma unroll
  for (int k = 0; k + 1 < kWindow; ++k) rows[k] = rows[k + 1];
  rows[kWindow - 1] = row;
}
// The window is symmetric: rows at the same distance are added first. f(k) is the number at k - kSsimRadius.
template <class T, class F>
__device__ __forceinline__ T window_of(const T (&weights)[kSsimRadius + 1], const F& f) {
  T sum = f(kSsimRadius);
#pragma unroll
  for (int k = 1; k <= kSsimRadius; ++k) sum += weights[k] * (f(kSsimRadius - k) + f(kSsimRadius + k));
  return sum;
}

// Windowed means of one number. Aligned, so that a thread reads them with 16 bytes at a time.
template <class T>
struct alignas(16) Means {
  T u, v, uu, vv;
};
template <class T>
struct Pair {
  T u, v;
};
// u and v of the number `column` of row y, 0 outside the image and where the mask leaves the pixel out.
template <class T>
__device__ __forceinline__ Pair<T> load_pair(const LossArgs<T>& a, int y, int column, bool in_row) {
  if (!in_row || y < 0 || y >= a.height) return {T(0), T(0)};
  if (a.mask && a.mask[int64_t(y) * a.width + column / 3] == 0) return {T(0), T(0)};
  const int64_t at = 3 * int64_t(y) * a.width + column;
  const T x = a.radiance[at], other = a.photo ? a.photo[at] : T(a.photo_bytes[at]) / T(255);
  return {x + other, x - other};
}

template <class T>
__global__ void __launch_bounds__(kLossThreads) loss_kernel(LossArgs<T> a, LossPlan<T> plan) {
  __shared__ Means<T> means[kLossThreads];
  __shared__ SsimSlopes<T> slopes[kLossThreads];
  const double share = share_of_number(a, plan);
  const T by_difference = T((1 - a.ssim_weight) * share);
  const T by_similarity = T(a.ssim_weight * share / (plan.total * plan.total));
  const T scale = T(1 / (plan.total * plan.total));

  const int band = blockIdx.x / plan.strips, strip = blockIdx.x % plan.strips, thread = threadIdx.x;
  const int column = strip * kStripNumbers - 2 * kReach + thread;
  const bool in_row = column >= 0 && column < 3 * a.width;
  const bool slopes_wanted = thread >= kReach && thread < kLossThreads - kReach;
  const bool own = in_row && thread >= 2 * kReach && thread < kLossThreads - 2 * kReach;
  const int begin = band * plan.rows, end = begin + plan.rows < a.height ? begin + plan.rows : a.height;
  const int reach = a.grad ? kSsimRadius : 0;

  T u[kWindow] = {}, v[kWindow] = {};  // rows y - 5 .. y + 5 of the column
  T constant[kWindow] = {}, sum[kWindow] = {}, difference[kWindow] = {};  // rows y - 10 .. y: windows of the slopes
  double unlike = 0, apart = 0;
  const int first = begin - reach - kSsimRadius, last = end + reach + kSsimRadius;
  Pair<T> next = load_pair(a, first, column, in_row);
  for (int bottom = first; bottom < last; ++bottom) {
    push(u, next.u), push(v, next.v);
    if (bottom + 1 < last) next = load_pair(a, bottom + 1, column, in_row);  // on its way while this row is worked on
    const int y = bottom - kSsimRadius;
    if (y < begin - reach) continue;
    means[thread] = {
        window_of(plan.weights, [&](int k) { return u[k]; }), window_of(plan.weights, [&](int k) { return v[k]; }),
        window_of(plan.weights, [&](int k) { return u[k] * u[k]; }),
        window_of(plan.weights, [&](int k) { return v[k] * v[k]; })};
    __syncthreads();
    if (slopes_wanted) {
      SsimSlopes<T> here{T(0), T(0), T(0)};
      if (in_row && y >= 0 && y < a.height && (!a.mask || a.mask[int64_t(y) * a.width + column / 3] != 0)) {
        Means<T> m = means[thread];
#pragma unroll
        for (int k = 1; k <= kSsimRadius; ++k) {
          const Means<T> left = means[thread - 3 * k], right = means[thread + 3 * k];
          m.u += plan.weights[k] * (left.u + right.u), m.v += plan.weights[k] * (left.v + right.v);
          m.uu += plan.weights[k] * (left.uu + right.uu), m.vv += plan.weights[k] * (left.vv + right.vv);
        }
        const T d = dissimilarity(SsimMeans<T>{scale * m.u, scale * m.v, scale * m.uu, scale * m.vv}, here);
        if (own && y >= begin && y < end) unlike += double(d), apart += double(smax(v[kSsimRadius], -v[kSsimRadius]));
      }
      slopes[thread] = here;
    }
    __syncthreads();
    if (!a.grad || !own) continue;
    push(constant, window_of(plan.weights, [&](int k) { return slopes[thread + 3 * (k - kSsimRadius)].constant; }));
    push(sum, window_of(plan.weights, [&](int k) { return slopes[thread + 3 * (k - kSsimRadius)].sum; }));
    push(difference, window_of(plan.weights, [&](int k) { return slopes[thread + 3 * (k - kSsimRadius)].difference; }));
    const int z = y - kSsimRadius;
    if (z < begin) continue;
    const T sign = v[0] > T(0) ? by_difference : v[0] < T(0) ? -by_difference : T(0);
    const T gradient = sign + by_similarity * (window_of(plan.weights, [&](int k) { return constant[k]; }) +
                                               u[0] * window_of(plan.weights, [&](int k) { return sum[k]; }) +
                                               v[0] * window_of(plan.weights, [&](int k) { return difference[k]; }));
    const bool kept = !a.mask || a.mask[int64_t(z) * a.width + column / 3] != 0;
    a.grad[3 * int64_t(z) * a.width + column] = mask_or_zero(kept, gradient);
  }
  apart = block_sum<kLossWarps>(apart);
  unlike = block_sum<kLossWarps>(unlike);
  if (thread == 0) plan.sums[2 * int64_t(blockIdx.x)] = apart, plan.sums[2 * int64_t(blockIdx.x) + 1] = unlike;
}

// How many pixels the mask keeps, of those that this block goes through.
__global__ void __launch_bounds__(kLossThreads) loss_mask_kernel(const uint8_t* mask, int64_t pixels, int64_t* counts) {
  int64_t kept = 0;
  for (int64_t i = item(); i < pixels; i += int64_t(gridDim.x) * kLossThreads) kept += mask[i] != 0;
  kept = block_sum<kLossWarps>(kept);
  if (threadIdx.x == 0) counts[blockIdx.x] = kept;
}

// One block: the sums of all blocks of loss_kernel, in order.
template <class T>
__global__ void __launch_bounds__(kLossThreads) loss_total_kernel(LossArgs<T> a, LossPlan<T> plan) {
  const double share = share_of_number(a, plan);
  double apart = 0, unlike = 0;
  for (int i = threadIdx.x; i < plan.strips * plan.bands; i += kLossThreads)
    apart += plan.sums[2 * int64_t(i)], unlike += plan.sums[2 * int64_t(i) + 1];
  apart = share * block_sum<kLossWarps>(apart);
  unlike = share * block_sum<kLossWarps>(unlike);
  if (threadIdx.x > 0) return;
  *a.loss = T((1 - a.ssim_weight) * apart + a.ssim_weight * unlike);
  *a.l1 = T(apart), *a.ssim = T(1 - unlike);
}

template <class T>
LossPlan<T> plan_of(const LossArgs<T>& a) {
  // Enough blocks to fill a large GPU once, but bands not so low that their edges cost more than they do, nor so high
  // that the last blocks keep the others waiting.
  constexpr int kBlocks = 384, kLeastRows = 16, kMostRows = 128;
  LossPlan<T> plan{};
  plan.strips = int(divide_up(3 * int64_t(a.width), kStripNumbers));
  const int64_t rows = divide_up(int64_t(a.height) * plan.strips, kBlocks);
  plan.rows = int(rows < kLeastRows ? kLeastRows : rows > kMostRows ? kMostRows : rows);
  plan.bands = int(divide_up(a.height, plan.rows));
  for (int k = 0; k <= kSsimRadius; ++k) {
    const double weight = std::exp(-k * k / (2 * kSsimSigma * kSsimSigma));
    plan.weights[k] = T(weight);
    plan.total += k ? 2 * weight : weight;
  }
  return plan;
}

template <class T>
Status loss(const LossArgs<T>& a, Context& context) {
  LossPlan<T> plan = plan_of(a);
  const int64_t blocks = int64_t(plan.strips) * plan.bands, pixels = int64_t(a.width) * a.height;
  plan.sums = context.scratch<double>(2 * blocks);
  if (a.mask) {
    const int64_t wanted = divide_up(pixels, 16 * kLossThreads);
    plan.counts_size = int(wanted < kLossThreads ? wanted : kLossThreads);
    int64_t* counts = context.scratch<int64_t>(plan.counts_size);
    plan.counts = counts;
    SR_TRY(launch("loss_mask_kernel", loss_mask_kernel, dim3(unsigned(plan.counts_size)), dim3(kLossThreads),
                  context.stream, a.mask, pixels, counts));
  }
  SR_TRY(launch("loss_kernel", loss_kernel<T>, dim3(unsigned(blocks)), dim3(kLossThreads), context.stream, a, plan));
  return launch("loss_total_kernel", loss_total_kernel<T>, dim3(1), dim3(kLossThreads), context.stream, a, plan);
}

template Status loss(const LossArgs<float>&, Context&);
template Status loss(const LossArgs<double>&, Context&);

}  // namespace splatrender::cuda
