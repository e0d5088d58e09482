// CUDA's words for g++: a kernel file that includes this instead of cuda_runtime.h is plain C++ and runs on the CPU.
// One thread of a block is one fiber (simt.cpp); a block runs on one thread of the operating system.
//
//   const char* wrong = simt::launch("scale", scale_kernel<float>, dim3(4), dim3(128), values, 2.f, count);
//
// is null when all is well, else a message that lives until this thread's next launch. What the runtime can see a
// kernel do wrong (a deadlock, lanes that disagree about a collective, a barrier after a thread has left) ends up
// there; races and overruns are for the sanitizer builds, uninitialised shared memory shows as NaN.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// The tag marks the names of shared arrays in the symbol table: the runtime finds them there and fills them with NaN
// before each block. The address and undefined-behaviour sanitizers see plain statics better than thread_local ones.
#ifdef SIMT_PLAIN_SHARED
#define __shared__ static __attribute__((abi_tag("simt_shared")))
#else
#define __shared__ static thread_local __attribute__((abi_tag("simt_shared")))
#endif

// ---- vector types ----------------------------------------------------------------------------------------------
#define SIMT_VECTORS(T, name, bytes2, bytes4)                                  \
  struct alignas(bytes2) name##2 { T x, y; };                                  \
  struct name##3 { T x, y, z; };                                               \
  struct alignas(bytes4) name##4 { T x, y, z, w; };                            \
  inline constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTORS(float, float, 8, 16)
SIMT_VECTORS(double, double, 16, 16)
SIMT_VECTORS(int, int, 8, 16)
SIMT_VECTORS(unsigned, uint, 8, 16)
SIMT_VECTORS(short, short, 4, 8)
SIMT_VECTORS(unsigned short, ushort, 4, 8)
SIMT_VECTORS(signed char, char, 2, 4)
SIMT_VECTORS(unsigned char, uchar, 2, 4)
SIMT_VECTORS(long long, longlong, 16, 16)
#undef SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = struct CUstream_st*;
constexpr int warpSize = 32;

// ---- the runtime (simt.cpp) ------------------------------------------------------------------------------------
namespace simt {

struct Position {
  uint3 thread;  // of this fiber in its block
  int lane;
};
struct Place {
  uint3 block;
  dim3 block_size, grid_size;
};
extern thread_local const Position* position;
extern thread_local const Place* place;

// Where a collective was called: lanes that meet must have called the same one.
struct Site {
  const char* what;
  const char* file;
  int line;
};
// Waits for every thread of the block; how many of them gave a predicate that holds.
int block_barrier(bool predicate, Site site);

// What the lanes named by `mask` learn of each other when all have arrived.
enum class Exchange {
  none,
  shuffle,
  ballot,
  match,
  add,
  min,
  max,
  add_signed,
  min_signed,
  max_signed,
  all_of,
  one_of,
  odd
};
uint64_t warp_exchange(Exchange kind, unsigned mask, uint64_t value, int source_lane, Site site);

// Ends the running launch with this message; does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Launch {
  const char* name;
  const void* kernel;  // its address, which is how its shared arrays and its translation from PTX are found
  dim3 grid, block;
  void (*body)(void* call);
  void* call;
  const void* const* arguments;
};
const char* run(const Launch& launch);
int multiprocessors();  // of the GPU that is emulated: how many blocks a kernel cuts its work into may depend on it

// A kernel's body translated from PTX, which then runs instead of the one that g++ compiled; by mangled name.
using TranslatedBody = void (*)(const void* const* arguments);
void add_translation(const char* name, TranslatedBody body);

template <class... P>
const char* launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::common_type_t<P>... arguments) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } call{kernel, std::tuple<P...>(arguments...)};
  const auto body = [](void* c) { std::apply(static_cast<Call*>(c)->kernel, static_cast<Call*>(c)->arguments); };
  const void* const pointers[] = {static_cast<const void*>(&arguments)..., nullptr};
  return run({name, reinterpret_cast<const void*>(kernel), grid, block, body, &call, pointers});
}

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}
template <class T>
inline uint64_t widen(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "at most 8 bytes travel between lanes");
  uint64_t wide = 0;
  std::memcpy(&wide, &value, sizeof(T));
  return wide;
}
template <class T>
inline T narrow(uint64_t wide) {
  T value;
  std::memcpy(&value, &wide, sizeof(T));
  return value;
}

}  // namespace simt

#define threadIdx (::simt::position->thread)
#define blockIdx (::simt::place->block)
#define blockDim (::simt::place->block_size)
#define gridDim (::simt::place->grid_size)

// ---- barriers and warp intrinsics ------------------------------------------------------------------------------
// The last two parameters of each are filled in by the compiler.
#define SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_CALLER) { simt::block_barrier(false, {"__syncthreads", file, line}); }
inline int __syncthreads_count(int predicate, SIMT_CALLER) {
  return simt::block_barrier(predicate != 0, {"__syncthreads_count", file, line});
}
inline int __syncthreads_or(int predicate, SIMT_CALLER) {
  return simt::block_barrier(predicate != 0, {"__syncthreads_or", file, line}) != 0;
}
inline int __syncthreads_and(int predicate, SIMT_CALLER) {
  return simt::block_barrier(predicate == 0, {"__syncthreads_and", file, line}) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALLER) {
  simt::warp_exchange(simt::Exchange::none, mask, 0, 0, {"__syncwarp", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return unsigned(simt::warp_exchange(simt::Exchange::ballot, mask, predicate != 0, 0, {"__ballot_sync", file, line}));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return simt::warp_exchange(simt::Exchange::ballot, mask, predicate != 0, 0, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return simt::warp_exchange(simt::Exchange::ballot, mask, predicate == 0, 0, {"__all_sync", file, line}) == 0;
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, SIMT_CALLER) {
  return unsigned(
      simt::warp_exchange(simt::Exchange::match, mask, simt::widen(value), 0, {"__match_any_sync", file, line}));
}

// A lane whose source is outside its segment of `width` lanes gets its own value, as on the GPU.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_CALLER) {
  const int lane = simt::position->lane, first = lane & ~(width - 1);
  return simt::narrow<T>(simt::warp_exchange(
      simt::Exchange::shuffle, mask, simt::widen(value), first | (source & (width - 1)), {"__shfl_sync", file, line}));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_CALLER) {
  const int lane = simt::position->lane, source = lane ^ bits, end = (lane & ~(width - 1)) + width;
  return simt::narrow<T>(simt::warp_exchange(simt::Exchange::shuffle, mask, simt::widen(value),
                                             source < end ? source : lane, {"__shfl_xor_sync", file, line}));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32, SIMT_CALLER) {
  const int lane = simt::position->lane, end = (lane & ~(width - 1)) + width, source = lane + int(step);
  return simt::narrow<T>(simt::warp_exchange(simt::Exchange::shuffle, mask, simt::widen(value),
                                             source < end ? source : lane, {"__shfl_down_sync", file, line}));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32, SIMT_CALLER) {
  const int lane = simt::position->lane, first = lane & ~(width - 1), source = lane - int(step);
  return simt::narrow<T>(simt::warp_exchange(simt::Exchange::shuffle, mask, simt::widen(value),
                                             source >= first ? source : lane, {"__shfl_up_sync", file, line}));
}

#define SIMT_REDUCE(name, T, kind)                                                                               \
  inline T name(unsigned mask, T value, SIMT_CALLER) {                                                           \
    return T(simt::warp_exchange(simt::Exchange::kind, mask, uint64_t(int64_t(value)), 0, {#name, file, line})); \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, add)
SIMT_REDUCE(__reduce_add_sync, int, add_signed)
SIMT_REDUCE(__reduce_min_sync, unsigned, min)
SIMT_REDUCE(__reduce_min_sync, int, min_signed)
SIMT_REDUCE(__reduce_max_sync, unsigned, max)
SIMT_REDUCE(__reduce_max_sync, int, max_signed)
SIMT_REDUCE(__reduce_and_sync, unsigned, all_of)
SIMT_REDUCE(__reduce_or_sync, unsigned, one_of)
SIMT_REDUCE(__reduce_xor_sync, unsigned, odd)
#undef SIMT_REDUCE
#undef SIMT_CALLER

// ---- atomics ---------------------------------------------------------------------------------------------------
namespace simt {
// Replaces *address by f(*address) in one step; what stood there before.
template <class T, class F>
inline T atomic_update(T* address, const F& f) {
  T before, after;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  do after = f(before);
  while (!__atomic_compare_exchange(address, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}
template <class T>
using Same = std::common_type_t<T>;  // a parameter that does not take part in deduction
}  // namespace simt

template <class T>
inline T atomicAdd(T* address, simt::Same<T> value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return T(old + value); });
}
template <class T>
inline T atomicSub(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return simt::atomic_update(address, [=](T old) { return T(old - value); });
}
template <class T>
inline T atomicMax(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
inline T atomicMin(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
inline T atomicAnd(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return T(old & value); });
}
template <class T>
inline T atomicOr(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return T(old | value); });
}
template <class T>
inline T atomicXor(T* address, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T old) { return T(old ^ value); });
}
template <class T>
inline T atomicExch(T* address, simt::Same<T> value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4);
  return simt::atomic_update(address, [=](T) { return value; });
}
template <class T>
inline T atomicCAS(T* address, simt::Same<T> expected, simt::Same<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  __atomic_compare_exchange(address, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ---- loads, bits, arithmetic -----------------------------------------------------------------------------------
template <class T>
inline T __ldg(const T* address) {
  return *address;
}
template <class T>
inline T __ldcs(const T* address) {
  return *address;
}
template <class T>
inline void __stcs(T* address, T value) {
  *address = value;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}

inline unsigned __float_as_uint(float x) { return simt::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_as<float>(x); }
inline float __int_as_float(int x) { return simt::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_as<double>(x); }

inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __expf(float x) { return std::exp(x); }
inline float __exp2f(float x) { return std::exp2(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

// The number where the other is NaN.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
#define SIMT_EXTREMES(T)                                     \
  inline constexpr T min(T a, T b) { return b < a ? b : a; } \
  inline constexpr T max(T a, T b) { return a < b ? b : a; }
SIMT_EXTREMES(int)
SIMT_EXTREMES(unsigned)
SIMT_EXTREMES(long)
SIMT_EXTREMES(unsigned long)
SIMT_EXTREMES(long long)
SIMT_EXTREMES(unsigned long long)
#undef SIMT_EXTREMES

// ---- settings, also for ctypes ---------------------------------------------------------------------------------
// Each overrides its environment variable, and returns null or what is wrong with the value.
extern "C" {
// "forward", "reverse" or "random:SEED": in which order threads and blocks get their turn (SIMT_ORDER).
__attribute__((visibility("default"))) const char* simt_set_order(const char* order);
// How many threads of the operating system share the blocks of a launch, 1 to 64 (SIMT_THREADS).
__attribute__((visibility("default"))) const char* simt_set_threads(int count);
// Multiprocessors of the GPU that is emulated, 1 to 1024 (SIMT_MULTIPROCESSORS).
__attribute__((visibility("default"))) const char* simt_set_multiprocessors(int count);
// Launches since the library was loaded.
__attribute__((visibility("default"))) long simt_launches();
}
