#include "../../csrc/cuda/warp.h"
#include "toys.h"

namespace toys {

using splatrender::cuda::kAllLanes;
using splatrender::cuda::Status;

__device__ int global_thread() {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  return block * int(blockDim.x * blockDim.y * blockDim.z) + thread;
}

// ---- what the primitives do ------------------------------------------------------------------------------------

__global__ void indices(const int*, int* out, int64_t) {
  out[global_thread()] = int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.x +
                             10000 * blockIdx.y + 100000 * blockIdx.z);
}

template <class T>
__global__ void reverse_block(const T* in, T* out, int64_t) {
  __shared__ T tile[256];
  const int i = global_thread();
  tile[threadIdx.x] = in[i];
  __syncthreads();
  out[i] = tile[blockDim.x - 1 - threadIdx.x];
}

__global__ void barrier_votes(const int* in, int* out, int64_t) {
  const int i = global_thread();
  out[3 * i] = __syncthreads_count(in[i] > 0);
  out[3 * i + 1] = __syncthreads_and(in[i] > 0) != 0;
  out[3 * i + 2] = __syncthreads_or(in[i] > 0) != 0;
}

template <class T>
__global__ void shuffles(const T* in, T* out, int64_t) {
  const int i = global_thread();
  T* row = out + 8 * i;
  const T x = in[i];
  row[0] = __shfl_sync(kAllLanes, x, 5);
  row[1] = __shfl_sync(kAllLanes, x, int(threadIdx.x + 1));
  row[2] = __shfl_xor_sync(kAllLanes, x, 6);
  row[3] = __shfl_up_sync(kAllLanes, x, 3);
  row[4] = __shfl_down_sync(kAllLanes, x, 3);
  row[5] = __shfl_sync(kAllLanes, x, 9, 8);
  row[6] = __shfl_up_sync(kAllLanes, x, 3, 8);
  row[7] = __shfl_down_sync(kAllLanes, x, 3, 8);
}

__global__ void warp_votes(const int* in, unsigned* out, int64_t) {
  const int i = global_thread();
  unsigned* row = out + 9 * i;
  const int x = in[i];
  row[0] = __ballot_sync(kAllLanes, x > 0);
  row[1] = __any_sync(kAllLanes, x > 3) != 0;
  row[2] = __all_sync(kAllLanes, x > -100) != 0;
  row[3] = __match_any_sync(kAllLanes, x);
  row[4] = unsigned(__reduce_add_sync(kAllLanes, x));
  row[5] = unsigned(__reduce_min_sync(kAllLanes, x));
  row[6] = __reduce_max_sync(kAllLanes, unsigned(x));
  row[7] = __reduce_or_sync(kAllLanes, unsigned(x));
  row[8] = __reduce_xor_sync(kAllLanes, unsigned(x));
}

// Two groups of lanes go their own ways at the same time, and meet again.
__global__ void partial_masks(const int* in, int* out, int64_t) {
  const int i = global_thread();
  int x = in[i];
  if (threadIdx.x % 3 == 0) {
    const unsigned mask = 0x49249249u;
    x += __shfl_sync(mask, x, 3);
    x += __shfl_sync(mask, x, 30);
  } else {
    const unsigned mask = 0xb6db6db6u;
    for (int k = 0; k < 3; ++k) x += __shfl_sync(mask, x, 1 + 3 * k);
    __syncwarp(mask);
  }
  __syncwarp();
  out[i] = x + __popc(__ballot_sync(kAllLanes, x & 1));
}

template <class T>
__global__ void atomics(const T* in, T* out, int64_t) {
  const T x = in[global_thread()];
  atomicAdd(&out[0], x);
  if constexpr (T(0.5) == T(0)) {
    atomicMax(&out[1], x);
    atomicMin(&out[2], x);
    atomicOr(&out[3], x);
    atomicAnd(&out[4], x);
    atomicXor(&out[5], x);
    if (x == in[7]) atomicExch(&out[6], x);
    atomicCAS(&out[7], T(0), in[9]);
  }
}

__global__ void bits(const unsigned* in, unsigned* out, int64_t) {
  const int i = global_thread();
  unsigned* row = out + 8 * i;
  const unsigned x = in[i];
  const unsigned long long wide = (static_cast<unsigned long long>(x) << 32) | (x >> 3);
  row[0] = unsigned(__popc(x));
  row[1] = unsigned(__popcll(wide));
  row[2] = unsigned(__ffs(int(x)));
  row[3] = unsigned(__clz(int(x)));
  row[4] = unsigned(__clzll(static_cast<long long>(wide >> 5)));
  row[5] = __brev(x);
  row[6] = __float_as_uint(__uint_as_float(x ^ 1u));
  row[7] = (x >> 7 & 0x1fu) | (x << 13) | ((x & 0xff00ffu) * 3u);
}

template <class T>
__global__ void integers(const T* in, T* out, int64_t) {
  const int i = global_thread();
  T* row = out + 10 * i;
  const T a = in[2 * i], b = in[2 * i + 1];
  row[0] = a / b;
  row[1] = a % b;
  row[2] = T(a << (i % 31));
  row[3] = T(a >> (i % 31));
  row[4] = T(a & b), row[5] = T((a | b) ^ (a << 1));
  row[6] = min(a, b), row[7] = max(a, b);
  row[8] = a > b ? T(a - b) : T(b - a);
  row[9] = T((int64_t(a) * int64_t(b)) >> 16);
}

template <class T>
__global__ void functions(const T* in, T* out, int64_t) {
  const int i = global_thread();
  T* row = out + 14 * i;
  const T x = in[i], y = in[i ^ 1];
  row[0] = x + y, row[1] = x * y, row[2] = x / y;
  row[3] = std::sqrt(std::abs(x));
  row[4] = T(1) / std::sqrt(std::abs(x) + T(1));
  row[5] = std::exp2(x);
  row[6] = std::log2(std::abs(x) + T(1));
  row[7] = std::fma(x, y, T(0.25));
  row[8] = -std::expm1(-std::abs(x));
  row[9] = min(x, y), row[10] = max(x, T(0));
  row[11] = std::exp(x);
  row[12] = std::pow(std::abs(x) + T(1), y / 4);
  row[13] = std::sin(x * T(40000));
}

__global__ void conversions(const float* in, float* out, int64_t) {
  const int i = global_thread();
  float* row = out + 8 * i;
  const float x = in[i];
  row[0] = float(int(x)), row[1] = std::floor(x), row[2] = std::ceil(x), row[3] = std::nearbyint(x);
  row[4] = float(double(x) / 3), row[5] = float(int64_t(x * 1000)), row[6] = float(uint8_t(std::abs(x)));
  row[7] = std::trunc(x);
}

// Vector loads and stores, a table in constant memory, an array with a computed index, arguments by value.
struct Pieces {
  const float4* in;
  float4* out;
  float factor[3];
};
__constant__ const float kTable[5] = {0.5f, 1.5f, -2.f, 4.f, 8.f};
__global__ void layouts(Pieces pieces, int turns) {
  const int i = global_thread();
  const float4 v = pieces.in[i];
  float ring[4] = {v.x, v.y, v.z, v.w};
  for (int k = 0; k < turns; ++k) ring[(i + k) % 4] += pieces.factor[k % 3] * ring[(i + k + 1) % 4];
  const float2 half = reinterpret_cast<const float2*>(pieces.in)[2 * i + 1];
  pieces.out[i] = make_float4(ring[0] * kTable[i % 5], ring[1], ring[2] + half.x, ring[3] - half.y);
}
Status run_layouts(const void* in, void* out, int64_t, Sizes s) {
  const Pieces pieces{static_cast<const float4*>(in), static_cast<float4*>(out), {0.5f, -1.f, 2.f}};
  return splatrender::cuda::launch("layouts", layouts, dim3(s.grid[0]), dim3(s.block[0]), nullptr, pieces, 7);
}

// In which order threads get their turn.
__global__ void turns(const int*, int* out, int64_t) { out[1 + atomicAdd(&out[0], 1)] = global_thread(); }

// Instructions that nvcc seldom writes on its own; only for the translation of PTX.
__global__ void instructions([[maybe_unused]] const unsigned* in, [[maybe_unused]] unsigned* out, int64_t) {
#ifdef __CUDACC__
  const int i = global_thread();
  const unsigned a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
  unsigned* row = out + 20 * i;
  asm("bfe.u32 %0, %1, %2, %3;" : "=r"(row[0]) : "r"(a), "r"(b & 31), "r"(c & 31));
  asm("bfe.s32 %0, %1, %2, %3;" : "=r"(row[1]) : "r"(a), "r"(b & 31), "r"(c & 31));
  asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(row[2]) : "r"(a), "r"(b), "r"(c & 31), "r"(c >> 5 & 31));
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(row[3]) : "r"(a), "r"(b), "r"(c));
  asm("shf.l.wrap.b32 %0, %1, %2, %3;" : "=r"(row[4]) : "r"(a), "r"(b), "r"(c & 63));
  asm("shf.r.clamp.b32 %0, %1, %2, %3;" : "=r"(row[5]) : "r"(a), "r"(b), "r"(c & 63));
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(row[6]) : "r"(a), "r"(b), "r"(c));
  asm("add.cc.u32 %0, %2, %3;\n\taddc.u32 %1, %3, %4;" : "=r"(row[7]), "=r"(row[8]) : "r"(a), "r"(b), "r"(c));
  asm("sub.cc.u32 %0, %2, %3;\n\tsubc.u32 %1, %3, %4;" : "=r"(row[9]), "=r"(row[10]) : "r"(a), "r"(b), "r"(c));
  asm("mul.hi.u32 %0, %1, %2;" : "=r"(row[11]) : "r"(a), "r"(b));
  asm("mul.hi.s32 %0, %1, %2;" : "=r"(row[12]) : "r"(a), "r"(b));
  asm("bfind.u32 %0, %1;" : "=r"(row[13]) : "r"(a));
  asm("bfind.shiftamt.s32 %0, %1;" : "=r"(row[14]) : "r"(a));
  asm("mad.lo.cc.u32 %0, %2, %3, %4;\n\tmadc.hi.u32 %1, %2, %3, %4;"
      : "=r"(row[15]), "=r"(row[16])
      : "r"(a), "r"(b), "r"(c));
  asm("{ .reg .pred p, q; setp.lt.u32 p|q, %1, %2; selp.u32 %0, 7, 9, p; @q add.u32 %0, %0, 100; }"
      : "=r"(row[17])
      : "r"(a), "r"(b));
  float lower, upper;
  asm("div.rm.f32 %0, %2, %3;\n\tdiv.rp.f32 %1, %2, %3;"
      : "=f"(lower), "=f"(upper)
      : "f"(float(a & 0xffff)), "f"(float((b & 0xffff) | 3)));
  row[18] = __float_as_uint(lower), row[19] = __float_as_uint(upper);
#else
  simt::fail("inline PTX");
#endif
}

// ---- mistakes --------------------------------------------------------------------------------------------------

// Sums neighbours of a tile in shared memory, tile after tile, and adds the block's sum to a number of all blocks.
enum class Bug { none, read_too_early, write_too_early, plain_add, shared_overrun, global_overrun };
constexpr int kTile = 64;
__device__ int tile_length(int64_t n) { return n > 0 ? kTile : 0; }

template <Bug kBug>
__global__ void tile_sums(const float* in, float* out, int64_t n) {
  __shared__ float tile[kTile];
  const int thread = int(threadIdx.x), tiles = int(n / kTile);
  float sum = 0.f;
  for (int t = int(blockIdx.x); t < tiles; t += int(gridDim.x)) {
    tile[thread] = in[t * kTile + thread];
    if (kBug == Bug::shared_overrun && thread == 0) tile[tile_length(n) + thread] = 1.f;
    if (kBug != Bug::read_too_early) __syncthreads();
    sum += tile[(thread + 1) % kTile] * float(thread + 1) + tile[(thread + kTile - 1) % kTile];
    if (kBug != Bug::write_too_early) __syncthreads();
  }
  sum = splatrender::cuda::warp_sum(sum);
  if (thread % 32 == 0) {
    float* total = &out[0];
    if (kBug == Bug::plain_add)
      *total += sum;
    else
      atomicAdd(total, sum);
  }
  if (kBug == Bug::global_overrun && thread == 0 && blockIdx.x == 0) out[1] = sum;
}

// Every lane reads what its neighbour wrote: after nothing, after a shuffle, which orders no memory, or after a
// barrier.
enum class Between { nothing, shuffle, barrier };
template <Between kBetween>
__global__ void neighbours(const float* in, float* out, int64_t) {
  __shared__ float tile[kTile];
  tile[threadIdx.x] = in[threadIdx.x];
  float got = 0.f;
  if (kBetween == Between::shuffle) got = 0.f * __shfl_sync(kAllLanes, in[threadIdx.x], 0);
  if (kBetween == Between::barrier) __syncwarp();
  got += tile[threadIdx.x ^ 1];
  atomicAdd(&out[0], got);
}
// One thread of every block, none of them atomic.
__global__ void plain_add_of_blocks(const float* in, float* out, int64_t) {
  if (threadIdx.x == 0) out[0] += in[blockIdx.x];
}

__global__ void uninitialised_shared(const float* in, float* out, int64_t) {
  __shared__ float tile[64];
  if (threadIdx.x % 2 == 0) tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
template <class T>
__device__ T helper_tile(T x, bool write) {
  __shared__ T hidden[32];
  if (write) hidden[threadIdx.x] = x;
  __syncthreads();
  return hidden[threadIdx.x];
}
__global__ void uninitialised_in_helper(const double* in, double* out, int64_t) {
  out[threadIdx.x] = helper_tile(in[threadIdx.x], threadIdx.x < 4);
}

__global__ void divergent_collective(const float* in, float* out, int64_t) {
  float x = in[threadIdx.x];
  if (x > 0.f)
    x += __shfl_xor_sync(kAllLanes, x, 1);
  else
    __syncwarp();
  out[threadIdx.x] = x;
}
__global__ void different_masks(const int* in, int* out, int64_t) {
  const int x = in[threadIdx.x];
  out[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0001u, x, 0);
}
__global__ void missing_lane(const float* in, float* out, int64_t) {
  float x = in[threadIdx.x];
  if (threadIdx.x != 5) x = __shfl_xor_sync(kAllLanes, x, 1);
  out[threadIdx.x] = x;
}
__global__ void divergent_barrier(const float* in, float* out, int64_t) {
  if (in[threadIdx.x] > 0.f) {
    out[threadIdx.x] = 1.f;
    __syncthreads();
  } else {
    out[threadIdx.x] = 2.f;
    __syncwarp();
    __syncthreads();
    out[threadIdx.x] += 1.f;
  }
}
__global__ void barrier_and_collective(const float* in, float* out, int64_t) {
  if (threadIdx.x < 40)
    __syncthreads();
  else
    __syncwarp();
  out[threadIdx.x] = in[threadIdx.x];
}
__global__ void early_exit(const float* in, float* out, int64_t) {
  if (in[threadIdx.x] < 0.f) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}
__global__ void outside_mask(const float* in, float* out, int64_t) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, in[threadIdx.x], 20);
}
__global__ void misaligned(const float* in, float* out, int64_t) {
  const float4 v = *reinterpret_cast<const float4*>(in + threadIdx.x);
  atomicAdd(&out[0], v.x + v.y + v.z + v.w);
}

// ---- the table -------------------------------------------------------------------------------------------------

template <auto kKernel, class In, class Out>
Status run_kernel(const void* in, void* out, int64_t n, Sizes s) {
  return splatrender::cuda::launch(
      "toy", kKernel, dim3(s.grid[0], s.grid[1], s.grid[2]), dim3(s.block[0], s.block[1], s.block[2]), nullptr,
      static_cast<const In*>(in), static_cast<Out*>(out), n);
}
#define TOY(name, kernel, In, Out, in_type, out_type) {name, in_type, out_type, &run_kernel<&kernel, In, Out>}

const Toy kToys[] = {
    TOY("indices", indices, int, int, 'i', 'i'),
    TOY("reverse_block", reverse_block<float>, float, float, 'f', 'f'),
    TOY("reverse_block_double", reverse_block<double>, double, double, 'd', 'd'),
    TOY("barrier_votes", barrier_votes, int, int, 'i', 'i'),
    TOY("shuffles", shuffles<int>, int, int, 'i', 'i'),
    TOY("shuffles_double", shuffles<double>, double, double, 'd', 'd'),
    TOY("warp_votes", warp_votes, int, unsigned, 'i', 'I'),
    TOY("partial_masks", partial_masks, int, int, 'i', 'i'),
    TOY("atomics", atomics<int>, int, int, 'i', 'i'),
    TOY("atomics_long", atomics<unsigned long long>, unsigned long long, unsigned long long, 'Q', 'Q'),
    TOY("atomics_float", atomics<float>, float, float, 'f', 'f'),
    TOY("atomics_double", atomics<double>, double, double, 'd', 'd'),
    TOY("bits", bits, unsigned, unsigned, 'I', 'I'),
    TOY("integers", integers<int>, int, int, 'i', 'i'),
    TOY("integers_long", integers<long long>, long long, long long, 'q', 'q'),
    TOY("functions", functions<float>, float, float, 'f', 'f'),
    TOY("functions_double", functions<double>, double, double, 'd', 'd'),
    TOY("conversions", conversions, float, float, 'f', 'f'),
    {"layouts", 'f', 'f', &run_layouts},
    TOY("turns", turns, int, int, 'i', 'i'),
    TOY("instructions", instructions, unsigned, unsigned, 'I', 'I'),
    TOY("tile_sums", tile_sums<Bug::none>, float, float, 'f', 'f'),
    TOY("read_too_early", tile_sums<Bug::read_too_early>, float, float, 'f', 'f'),
    TOY("write_too_early", tile_sums<Bug::write_too_early>, float, float, 'f', 'f'),
    TOY("plain_add", tile_sums<Bug::plain_add>, float, float, 'f', 'f'),
    TOY("shared_overrun", tile_sums<Bug::shared_overrun>, float, float, 'f', 'f'),
    TOY("global_overrun", tile_sums<Bug::global_overrun>, float, float, 'f', 'f'),
    TOY("neighbours", neighbours<Between::barrier>, float, float, 'f', 'f'),
    TOY("neighbours_unordered", neighbours<Between::nothing>, float, float, 'f', 'f'),
    TOY("neighbours_after_shuffle", neighbours<Between::shuffle>, float, float, 'f', 'f'),
    TOY("plain_add_of_blocks", plain_add_of_blocks, float, float, 'f', 'f'),
    TOY("uninitialised_shared", uninitialised_shared, float, float, 'f', 'f'),
    TOY("uninitialised_in_helper", uninitialised_in_helper, double, double, 'd', 'd'),
    TOY("divergent_collective", divergent_collective, float, float, 'f', 'f'),
    TOY("different_masks", different_masks, int, int, 'i', 'i'),
    TOY("missing_lane", missing_lane, float, float, 'f', 'f'),
    TOY("divergent_barrier", divergent_barrier, float, float, 'f', 'f'),
    TOY("barrier_and_collective", barrier_and_collective, float, float, 'f', 'f'),
    TOY("early_exit", early_exit, float, float, 'f', 'f'),
    TOY("outside_mask", outside_mask, float, float, 'f', 'f'),
    TOY("misaligned", misaligned, float, float, 'f', 'f'),
};
const int kToyCount = int(sizeof kToys / sizeof kToys[0]);

}  // namespace toys
