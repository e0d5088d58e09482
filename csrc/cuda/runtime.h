// The parts of CUDA that a kernel file needs, and nothing of torch: the keywords of device code, launches that return a
// Status, and the two copies that the stages make. With SPLATRENDER_EMULATED the same keywords come from
// tools/emulation/simt.h (an include path of its build), and the kernels run as plain C++ on the CPU.
//
// Rules that keep a kernel provable without a GPU: __syncthreads and its _count, _and, _or forms; warp intrinsics with
// masks that all named lanes agree on; shuffles of at most 8 bytes; static __shared__ arrays; no early return before a
// barrier; no spinning between blocks, no inline PTX, no textures, no cp.async, TMA or wgmma.
#pragma once
#include "context.h"
#ifdef SPLATRENDER_EMULATED
#include "simt.h"
#else
#include <cuda_runtime.h>
#endif
#include <cstring>

namespace splatrender::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifdef SPLATRENDER_EMULATED

template <class... P>
Status launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, void*, P... arguments) {
  const char* what = simt::launch(name, kernel, grid, block, arguments...);
  return {name, what, what ? 1 : 0};
}
inline Status fill_zero(void* to, int64_t bytes, void*) {
  std::memset(to, 0, size_t(bytes));
  return {};
}
inline Status read_back(void* host, const void* device, int64_t bytes, void*) {
  std::memcpy(host, device, size_t(bytes));
  return {};
}
inline Status count_multiprocessors(int& count) {
  count = simt::multiprocessors();
  return {};
}

#else

inline Status status_of(const char* name, cudaError_t error) {
  if (error == cudaSuccess) return {};
  cudaGetLastError();  // the error is reported here: the next call, such as one of CUB's, must not find it again
  return {name, cudaGetErrorString(error), int(error)};
}
template <class... P>
Status launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, void* stream, P... arguments) {
  void* pointers[] = {static_cast<void*>(&arguments)...};
  return status_of(name, cudaLaunchKernel(kernel, grid, block, pointers, 0, static_cast<cudaStream_t>(stream)));
}
inline Status fill_zero(void* to, int64_t bytes, void* stream) {
  return status_of("cudaMemsetAsync", cudaMemsetAsync(to, 0, size_t(bytes), static_cast<cudaStream_t>(stream)));
}
// Copies to the host and waits for it: the one hidden synchronisation, made by `bin` alone.
inline Status read_back(void* host, const void* device, int64_t bytes, void* stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  SR_TRY(status_of("cudaStreamIsCapturing", cudaStreamIsCapturing(s, &capture)));
  if (capture != cudaStreamCaptureStatusNone)
    return {"read_back", "the number of splat-tile pairs is read back, which a CUDA graph cannot capture",
            int(cudaErrorStreamCaptureUnsupported)};
  // to memory that stays pinned, one piece per thread: a copy to other memory takes a detour
  constexpr int64_t kPinned = 64;
  static thread_local void* pinned = nullptr;
  void* to = bytes <= kPinned ? pinned : host;
  if (!to) {
    SR_TRY(status_of("cudaHostAlloc", cudaHostAlloc(&pinned, kPinned, cudaHostAllocPortable)));
    to = pinned;
  }
  SR_TRY(status_of("cudaMemcpyAsync", cudaMemcpyAsync(to, device, size_t(bytes), cudaMemcpyDeviceToHost, s)));
  SR_TRY(status_of("cudaStreamSynchronize", cudaStreamSynchronize(s)));
  if (to != host) std::memcpy(host, to, size_t(bytes));
  return {};
}

// Of the current device.
inline Status count_multiprocessors(int& count) {
  int device = 0;
  SR_TRY(status_of("cudaGetDevice", cudaGetDevice(&device)));
  return status_of("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
}

#endif

// Launches over `count` items, one thread each. Nothing happens for none: CUDA refuses empty grids.
template <class... P>
Status launch_over(const char* name, void (*kernel)(P...), int64_t count, void* stream, P... arguments) {
  constexpr int kThreads = 256;
  if (count <= 0) return {};
  return launch(name, kernel, dim3(unsigned(divide_up(count, kThreads))), dim3(kThreads), stream, arguments...);
}
// The item of this thread in a launch_over.
__device__ __forceinline__ int64_t item() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace splatrender::cuda
